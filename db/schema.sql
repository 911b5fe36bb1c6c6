-- SPDX-License-Identifier: Apache-2.0
-- The index of scenelog: what was looked at, what was seen, and what was not.
--
-- All times are INTEGER microseconds, all spans half-open [start_us, end_us). "Media time" counts from the start of
-- the container (a file) or of the connection (a live source); "Unix time" from 1970-01-01 UTC.
-- Before the first table the program sets page_size 4096 and auto_vacuum = incremental (so that retention can shrink
-- the file), and after it journal_mode = WAL; PRAGMA user_version is the version of this schema, application_id
-- 0x534c4f47 ("SLOG"). Each connection has foreign_keys = ON. A window is written in one transaction.
-- The plain sqlite3 shell reads everything here, the words included: nothing needs functions of scenelog.

-- What a person names: a film, a camera.
CREATE TABLE source (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE -- --name; by default the file's name or the host of the URL
) STRICT;

-- A span during which a live source that should have been watched gave no pictures, or was not watched at all. Of the
-- source, whatever the task. Since version 2.
CREATE TABLE outage (
    id INTEGER PRIMARY KEY,
    source INTEGER NOT NULL REFERENCES source (id) ON DELETE CASCADE,
    start_us INTEGER NOT NULL, -- Unix time
    end_us INTEGER,            -- Unix time; null: not over, as far as is known
    cause TEXT NOT NULL,       -- the latest that was found, in words
    UNIQUE (source, start_us)
) STRICT;

-- One file, or one connection to a live source. A camera's archive is many files of one source.
CREATE TABLE media (
    id INTEGER PRIMARY KEY,
    source INTEGER NOT NULL REFERENCES source (id) ON DELETE CASCADE,
    path TEXT NOT NULL, -- absolute path where it was last seen; URL without credentials for a connection
    fingerprint TEXT,   -- size and hash of sampled blocks, see core/hash.h; null for a connection
    size_bytes INTEGER, -- when last seen; null for a connection
    mtime_us INTEGER,   -- Unix time of the last change; with inode and size it says whether to hash again; null as above
    inode INTEGER,      -- null as above
    duration_us INTEGER, -- as the container states it; null if it does not, or the media was not opened yet
    format TEXT,        -- container; null until opened
    codec TEXT,         -- codec, profile, size, rate, for people; null until opened
    UNIQUE (source, fingerprint)
) STRICT;
CREATE INDEX media_fingerprint ON media (fingerprint);
CREATE INDEX media_inode ON media (inode);

-- A stretch of media on which wall time is media time plus a constant. A file has one from 0; a clock step, a reconnect
-- or a discontinuity of a live source begins a new one.
CREATE TABLE segment (
    id INTEGER PRIMARY KEY,
    media INTEGER NOT NULL REFERENCES media (id) ON DELETE CASCADE,
    start_us INTEGER NOT NULL, -- media time
    end_us INTEGER,            -- media time where it truly ended; null until that was seen
    wall_start_us INTEGER,     -- Unix time of start_us; null: no wall time is known
    clock TEXT NOT NULL CHECK (clock IN ('none', 'user', 'arrival', 'camera')), -- where wall_start_us comes from
    error_us INTEGER,          -- estimated error of wall_start_us, plus or minus; null: not known
    UNIQUE (media, start_us)
) STRICT;

-- What was asked: prompt, grammar, rate, window length, pixel limits. Not the span, not the model, not the process.
CREATE TABLE task (
    id INTEGER PRIMARY KEY,
    text TEXT NOT NULL UNIQUE, -- canonical: equal text is the same task
    pair_us INTEGER NOT NULL CHECK (pair_us > 0) -- one frame-pair period: how near to an edge events are joined
) STRICT;

-- One lifetime of the program; for explaining, nothing is derived from it.
CREATE TABLE run (
    id INTEGER PRIMARY KEY,
    version TEXT NOT NULL,   -- of scenelog and its libraries
    host TEXT NOT NULL,
    arguments TEXT NOT NULL, -- without secrets
    started_us INTEGER NOT NULL, -- Unix time
    ended_us INTEGER,        -- Unix time; null: still going, or killed
    exit_status INTEGER      -- enum sl_status; null as above
) STRICT;

CREATE TABLE model (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    hash TEXT NOT NULL, -- of file sizes, headers and sampled blocks
    UNIQUE (name, hash)
) STRICT;

-- A source under a task, and who works on it. The row stays when the work is over. At most one process holds it: the
-- one whose token it is. On the same machine a holder whose process is gone is dead; elsewhere one whose heartbeat is
-- older than 30 s.
CREATE TABLE claim (
    source INTEGER NOT NULL REFERENCES source (id) ON DELETE CASCADE,
    task INTEGER NOT NULL REFERENCES task (id) ON DELETE CASCADE,
    answered_us INTEGER,  -- Unix time of the first done window; null: none yet. The newest is the task of plain queries
    token INTEGER,        -- random; this and all below are null when nobody works on it
    host TEXT,            -- for people
    machine TEXT,         -- boot id and pid namespace: where pid means something; null if the system does not say
    pid INTEGER,
    process_start INTEGER, -- start of the process in clock ticks since boot, so that a reused pid is not mistaken
    heartbeat_us INTEGER, -- Unix time
    PRIMARY KEY (source, task)
) STRICT, WITHOUT ROWID;

-- One unit of work and what came of it. The greater id is the newer one.
CREATE TABLE window (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    segment INTEGER NOT NULL REFERENCES segment (id) ON DELETE CASCADE,
    task INTEGER NOT NULL REFERENCES task (id) ON DELETE CASCADE,
    run INTEGER NOT NULL REFERENCES run (id),
    model INTEGER NOT NULL REFERENCES model (id),
    start_us INTEGER NOT NULL, -- media time
    end_us INTEGER NOT NULL,   -- media time
    state TEXT NOT NULL CHECK (state IN ('done', 'failed', 'dropped')),
    cause TEXT,                -- why failed or dropped; null when done
    frames_seen INTEGER NOT NULL,
    pairs_skipped INTEGER NOT NULL, -- frame pairs that the model did not get, being still
    prompt_tokens INTEGER NOT NULL,
    generated_tokens INTEGER NOT NULL,
    elapsed_ms INTEGER NOT NULL,
    raw_text TEXT,             -- the answer that could not be read; null unless failed for that
    committed_us INTEGER NOT NULL, -- Unix time
    CHECK (start_us < end_us),
    CHECK ((state = 'done') = (cause IS NULL))
) STRICT;
CREATE INDEX window_span ON window (segment, task, end_us, start_us, state);

-- A stretch inside a window that could not be decoded: nothing was seen there though the window is done.
CREATE TABLE hole (
    id INTEGER PRIMARY KEY,
    window INTEGER NOT NULL REFERENCES window (id) ON DELETE CASCADE,
    start_us INTEGER NOT NULL, -- media time
    end_us INTEGER NOT NULL,
    cause TEXT NOT NULL,
    CHECK (start_us < end_us)
) STRICT;
CREATE INDEX hole_window ON hole (window);

-- What a done window's answer says; never changed. Repeats inside the window are one piece already.
CREATE TABLE piece (
    id INTEGER PRIMARY KEY,
    window INTEGER NOT NULL REFERENCES window (id) ON DELETE CASCADE,
    start_us INTEGER NOT NULL, -- media time, inside the window
    end_us INTEGER NOT NULL,
    text TEXT NOT NULL,
    text_key INTEGER NOT NULL, -- hash of the text without case, space and punctuation: "says the same" (db/text.h)
    confidence REAL,           -- 0..1, geometric mean of the tokens' probabilities; null: not known
    CHECK (start_us < end_us)
) STRICT;
CREATE INDEX piece_window ON piece (window);

-- Which done window answers for which moment: the newest one. For a segment and task these spans never overlap, and
-- together they are all that was seen. A window that newer ones cover wholly has none.
CREATE TABLE answer (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    segment INTEGER NOT NULL REFERENCES segment (id) ON DELETE CASCADE,
    task INTEGER NOT NULL REFERENCES task (id) ON DELETE CASCADE,
    window INTEGER NOT NULL REFERENCES window (id) ON DELETE CASCADE,
    start_us INTEGER NOT NULL, -- media time, inside the window
    end_us INTEGER NOT NULL,
    CHECK (start_us < end_us)
) STRICT;
CREATE UNIQUE INDEX answer_span ON answer (segment, task, end_us, start_us);
CREATE INDEX answer_window ON answer (window);

-- What happened. Derived from answers and pieces alone (db/derive.h), kept here because it is what people ask for.
CREATE TABLE event (
    id INTEGER PRIMARY KEY AUTOINCREMENT, -- stays while the event is the same; never used again
    segment INTEGER NOT NULL REFERENCES segment (id) ON DELETE CASCADE,
    task INTEGER NOT NULL REFERENCES task (id) ON DELETE CASCADE,
    start_us INTEGER NOT NULL, -- media time
    end_us INTEGER NOT NULL,
    text TEXT NOT NULL,        -- of its earliest piece
    words TEXT,                -- text as indexed for search: compatibility forms resolved, characters of scripts that
                               -- write no spaces set apart; null where that is the text itself
    text_key INTEGER NOT NULL, -- of all its pieces
    confidence REAL,           -- the least of its pieces' that is known; null: none is
    model INTEGER NOT NULL REFERENCES model (id), -- that saw its earliest piece
    open INTEGER NOT NULL CHECK (open IN (0, 1)), -- 1: touches the edge of what was looked at, may still grow
    revision INTEGER NOT NULL DEFAULT 1,          -- counts the changes of this row
    span_class INTEGER NOT NULL, -- 0: up to 1 minute, 1: up to 10 minutes, 2: longer. A plain column: SQLite takes no
                                 -- index with a generated one for covering
    CHECK (start_us < end_us),
    CHECK (span_class = (end_us - start_us > 60000000) + (end_us - start_us > 600000000))
) STRICT;
-- An overlap query is three scans of this index, each bounded on both sides: an event of a class cannot start earlier
-- than the class's length before the span asked for. Exact, and covering.
CREATE INDEX event_span ON event (segment, task, span_class, start_us, end_us);

-- Which pieces, each as far as its answer reaches, an event consists of.
CREATE TABLE part (
    answer INTEGER NOT NULL REFERENCES answer (id) ON DELETE CASCADE,
    piece INTEGER NOT NULL REFERENCES piece (id) ON DELETE CASCADE,
    event INTEGER NOT NULL REFERENCES event (id) ON DELETE CASCADE,
    PRIMARY KEY (answer, piece)
) STRICT, WITHOUT ROWID;
CREATE INDEX part_event ON part (event);
CREATE INDEX part_piece ON part (piece);

-- Words. unicode61 takes a run of Chinese or Japanese for one word, and trigram cannot find words of one or two
-- characters, which most Chinese ones are (and its index of 300,000 mixed sentences took 22.6 MB against 7.2 MB, and four
-- times as long to write); so such characters are set apart in event.words, and a search for them is a phrase.
-- In the sqlite3 shell: SELECT text FROM event WHERE id IN (SELECT rowid FROM event_fts('"红 灯"')).
CREATE VIEW event_words AS SELECT id, coalesce(words, text) AS text FROM event;
CREATE VIRTUAL TABLE event_fts USING fts5 (
    text, content = 'event_words', content_rowid = 'id', columnsize = 0, tokenize = 'porter unicode61 remove_diacritics 2'
);
CREATE TRIGGER event_fts_insert AFTER INSERT ON event BEGIN
    INSERT INTO event_fts (rowid, text) VALUES (new.id, coalesce(new.words, new.text));
END;
CREATE TRIGGER event_fts_delete AFTER DELETE ON event BEGIN
    INSERT INTO event_fts (event_fts, rowid, text) VALUES ('delete', old.id, coalesce(old.words, old.text));
END;
CREATE TRIGGER event_fts_update AFTER UPDATE OF text, words ON event BEGIN
    INSERT INTO event_fts (event_fts, rowid, text) VALUES ('delete', old.id, coalesce(old.words, old.text));
    INSERT INTO event_fts (rowid, text) VALUES (new.id, coalesce(new.words, new.text));
END;
