// SPDX-License-Identifier: Apache-2.0
#include "db/derive.h"

#include <stdlib.h>
#include <string.h>

#include "db/text.h"

// A piece as far as one answer reaches.
struct node {
    int64_t answer, answer_start_us, answer_end_us;
    int64_t piece, start_us, end_us, key, model;
    double confidence; // negative: not known
    int64_t event;     // that the index says it belongs to; 0: none yet
    size_t root;       // of its group, a node that comes no later
    int spoken;        // 1: joined across its answer's end, so something has spoken there
};

// An event as the index has it.
struct known {
    int64_t id, start_us, end_us, key;
    int taken;
};

// An event as it follows from the nodes.
struct wanted {
    int64_t start_us, end_us, key, model, first_piece;
    double confidence;
    int open;
    int64_t id;
};

struct span {
    int64_t id, window, start_us, end_us;
};

// Everything that one change can touch.
struct derivation {
    struct sl_db *db;
    struct sl_error *e;
    int64_t segment, task, pair_us, segment_end_us;
    struct span *answers; // that overlap or touch the changed span
    size_t answer_count, answer_room;
    struct known *known;
    size_t known_count, known_room;
    struct node *nodes;
    size_t node_count, node_room;
    struct wanted *wanted;
    size_t wanted_count, wanted_room;
};

static void finish(struct derivation *d)
{
    free(d->answers);
    free(d->known);
    free(d->nodes);
    free(d->wanted);
}

// Room for one more item; returns the array, or NULL.
static void *grow(void *items, size_t count, size_t *room, size_t item_bytes)
{
    if (count < *room)
        return items;
    size_t more = *room ? *room * 2 : 32;
    void *larger = realloc(items, more * item_bytes);
    if (larger)
        *room = more;
    return larger;
}

#define ADD(d, list, count, room, ...)                                                                                 \
    do {                                                                                                               \
        void *larger_ = grow((d)->list, (d)->count, &(d)->room, sizeof *(d)->list);                                    \
        if (!larger_)                                                                                                  \
            return sl_fail((d)->e, SL_ERR_MEMORY, "deriving events: out of memory");                                   \
        (d)->list = larger_;                                                                                           \
        (d)->list[(d)->count++] = __VA_ARGS__;                                                                         \
    } while (0)

// --- Reading ---

static int begin(struct derivation *d)
{
    int status =
        store_value(d->db, &d->pair_us, "SELECT pair_us FROM task WHERE id = ?1", BIND(bind_int(d->task)), d->e);
    if (status > 0)
        status = store_value(d->db, &d->segment_end_us, "SELECT end_us FROM segment WHERE id = ?1",
                             BIND(bind_int(d->segment)), d->e);
    if (status == 0)
        return sl_fail(d->e, SL_ERR_INTERNAL, "segment %lld or task %lld is not in the index", (long long)d->segment,
                       (long long)d->task);
    return status < 0 ? status : SL_OK;
}

static int add_answer(struct derivation *d, sqlite3_stmt *row)
{
    ADD(d, answers, answer_count, answer_room,
        (struct span){sqlite3_column_int64(row, 0), sqlite3_column_int64(row, 1), sqlite3_column_int64(row, 2),
                      sqlite3_column_int64(row, 3)});
    return SL_OK;
}

// Answers never overlap, so in the order of their ends their starts ascend too, and the scan stops early.
static int read_answers(struct derivation *d, int64_t start_us, int64_t end_us)
{
    sqlite3_stmt *row;
    int status = store_prepare(d->db, &row,
                               "SELECT id, window, start_us, end_us FROM answer"
                               " WHERE segment = ?1 AND task = ?2 AND end_us >= ?3 ORDER BY end_us",
                               BIND(bind_int(d->segment), bind_int(d->task), bind_int(start_us)), d->e);
    if (status != SL_OK)
        return status;
    while ((status = store_step(d->db, row, d->e)) > 0 && sqlite3_column_int64(row, 2) <= end_us &&
           (status = add_answer(d, row)) == SL_OK)
        ;
    store_done(d->db, row);
    return status < 0 ? status : SL_OK;
}

// Columns: NODE_COLUMNS and the event.
static int add_node(struct derivation *d, sqlite3_stmt *row)
{
    ADD(d, nodes, node_count, node_room,
        (struct node){.answer = sqlite3_column_int64(row, 0),
                      .answer_start_us = sqlite3_column_int64(row, 1),
                      .answer_end_us = sqlite3_column_int64(row, 2),
                      .piece = sqlite3_column_int64(row, 3),
                      .start_us = sqlite3_column_int64(row, 4),
                      .end_us = sqlite3_column_int64(row, 5),
                      .key = sqlite3_column_int64(row, 6),
                      .confidence = sqlite3_column_type(row, 7) == SQLITE_NULL ? -1 : sqlite3_column_double(row, 7),
                      .model = sqlite3_column_int64(row, 8),
                      .event = sqlite3_column_int64(row, 9)});
    return SL_OK;
}

#define NODE_COLUMNS                                                                                                   \
    "SELECT answer.id, answer.start_us, answer.end_us, piece.id, max(piece.start_us, answer.start_us),"                \
    " min(piece.end_us, answer.end_us), piece.text_key, piece.confidence, window.model"

static int read_nodes(struct derivation *d, const char *sql, int64_t id)
{
    sqlite3_stmt *row;
    int status = store_prepare(d->db, &row, sql, BIND(bind_int(id), bind_int(d->task)), d->e);
    if (status != SL_OK)
        return status;
    while ((status = store_step(d->db, row, d->e)) > 0 && (status = add_node(d, row)) == SL_OK)
        ;
    store_done(d->db, row);
    return status;
}

static int read_nodes_of_event(struct derivation *d, int64_t event)
{
    return read_nodes(d,
                      NODE_COLUMNS ", part.event FROM part JOIN answer ON answer.id = part.answer"
                                   " JOIN piece ON piece.id = part.piece JOIN window ON window.id = answer.window"
                                   " WHERE part.event = ?1 AND answer.task = ?2",
                      event);
}

// A new answer's parts are in no event yet, so the same select serves it and the comparison.
#define NODES_OF_ANSWERS                                                                                               \
    NODE_COLUMNS ", part.event FROM answer JOIN window ON window.id = answer.window"                                   \
                 " JOIN piece ON piece.window = answer.window"                                                         \
                 " AND piece.start_us < answer.end_us AND piece.end_us > answer.start_us"                              \
                 " LEFT JOIN part ON part.answer = answer.id AND part.piece = piece.id"

static int add_known(struct derivation *d, sqlite3_stmt *row)
{
    int64_t id = sqlite3_column_int64(row, 0);
    for (size_t i = 0; i < d->known_count; i++)
        if (d->known[i].id == id)
            return SL_OK;
    ADD(d, known, known_count, known_room,
        (struct known){.id = id,
                       .start_us = sqlite3_column_int64(row, 1),
                       .end_us = sqlite3_column_int64(row, 2),
                       .key = sqlite3_column_int64(row, 3)});
    return read_nodes_of_event(d, id);
}

// The events with a part in these answers, and all of their nodes, wherever they are.
static int read_events(struct derivation *d)
{
    int status = SL_OK;
    for (size_t i = 0; i < d->answer_count && status == SL_OK; i++) {
        sqlite3_stmt *row;
        status = store_prepare(d->db, &row,
                               "SELECT DISTINCT event.id, event.start_us, event.end_us, event.text_key FROM part"
                               " JOIN event ON event.id = part.event WHERE part.answer = ?1 ORDER BY event.id",
                               BIND(bind_int(d->answers[i].id)), d->e);
        if (status != SL_OK)
            return status;
        while ((status = store_step(d->db, row, d->e)) > 0 && (status = add_known(d, row)) == SL_OK)
            ;
        store_done(d->db, row);
    }
    return status;
}

// --- Which window answers ---

static int insert_answer(struct derivation *d, int64_t window, int64_t start_us, int64_t end_us)
{
    if (start_us >= end_us)
        return SL_OK;
    int status = store_run(
        d->db, "INSERT INTO answer (segment, task, window, start_us, end_us) VALUES (?1, ?2, ?3, ?4, ?5)",
        BIND(bind_int(d->segment), bind_int(d->task), bind_int(window), bind_int(start_us), bind_int(end_us)), d->e);
    return status == SL_OK ? read_nodes(d, NODES_OF_ANSWERS " WHERE answer.id = ?1 AND answer.task = ?2",
                                        sqlite3_last_insert_rowid(d->db->sqlite))
                           : status;
}

static void forget_nodes(struct derivation *d, int64_t answer)
{
    size_t kept = 0;
    for (size_t i = 0; i < d->node_count; i++)
        if (d->nodes[i].answer != answer)
            d->nodes[kept++] = d->nodes[i];
    d->node_count = kept;
}

// The new window takes its span from the older answers; what sticks out of it on either side they keep.
static int take_over(struct derivation *d, int64_t window, int64_t start_us, int64_t end_us)
{
    int status = SL_OK;
    for (size_t i = 0; i < d->answer_count && status == SL_OK; i++) {
        const struct span *old = &d->answers[i];
        if (old->end_us <= start_us || old->start_us >= end_us)
            continue;
        forget_nodes(d, old->id);
        status = store_run(d->db, "DELETE FROM answer WHERE id = ?1", BIND(bind_int(old->id)), d->e);
        if (status == SL_OK)
            status = insert_answer(d, old->window, old->start_us, start_us);
        if (status == SL_OK)
            status = insert_answer(d, old->window, end_us, old->end_us);
    }
    return status == SL_OK ? insert_answer(d, window, start_us, end_us) : status;
}

// --- From nodes to events ---

static int compare(int64_t a, int64_t b)
{
    return (a > b) - (a < b);
}

static int by_key_and_time(const void *left, const void *right)
{
    const struct node *a = left, *b = right;
    int order = compare(a->key, b->key);
    if (!order)
        order = compare(a->answer_start_us, b->answer_start_us);
    return order ? order : compare(a->start_us, b->start_us);
}

static size_t root_of(struct node *nodes, size_t i)
{
    while (nodes[i].root != i)
        i = nodes[i].root = nodes[nodes[i].root].root;
    return i;
}

static void join(struct node *nodes, size_t a, size_t b)
{
    a = root_of(nodes, a);
    b = root_of(nodes, b);
    nodes[a > b ? a : b].root = a < b ? a : b;
}

// Nodes are sorted by key and time, so the right neighbours of a node follow it.
static void join_across_edges(struct derivation *d)
{
    struct node *nodes = d->nodes;
    for (size_t i = 0; i < d->node_count; i++)
        nodes[i].root = i;
    for (size_t i = 0; i < d->node_count; i++) {
        int64_t edge_us = nodes[i].answer_end_us;
        if (nodes[i].end_us < edge_us - d->pair_us)
            continue;
        for (size_t k = i + 1; k < d->node_count && nodes[k].key == nodes[i].key; k++) {
            if (nodes[k].answer_start_us > edge_us)
                break;
            if (nodes[k].answer_start_us == edge_us && nodes[k].start_us <= edge_us + d->pair_us) {
                join(nodes, i, k);
                nodes[i].spoken = 1;
            }
        }
    }
}

// May the node still grow beyond its answer's end?
static int is_open(struct derivation *d, const struct node *node)
{
    int64_t edge_us = node->answer_end_us, one;
    if (node->spoken || node->end_us < edge_us - d->pair_us ||
        (d->segment_end_us != SL_NO_TIME && edge_us >= d->segment_end_us))
        return 0;
    int status = store_value(d->db, &one,
                             "SELECT 1 FROM window WHERE segment = ?1 AND task = ?2 AND end_us > ?3"
                             " AND start_us <= ?3 LIMIT 1",
                             BIND(bind_int(d->segment), bind_int(d->task), bind_int(edge_us)), d->e);
    return status < 0 ? status : !status;
}

// The group's first node gave start, text and model.
static void add_to_wanted(struct wanted *event, const struct node *node)
{
    if (node->end_us > event->end_us)
        event->end_us = node->end_us;
    if (node->confidence >= 0 && (event->confidence < 0 || node->confidence < event->confidence))
        event->confidence = node->confidence;
}

// Groups the nodes into d->wanted. Afterwards node.root is the index of its event there.
static int group(struct derivation *d)
{
    if (!d->node_count)
        return SL_OK;
    qsort(d->nodes, d->node_count, sizeof *d->nodes, by_key_and_time);
    join_across_edges(d);
    for (size_t i = 0; i < d->node_count; i++)
        d->nodes[i].root = root_of(d->nodes, i);
    for (size_t i = 0; i < d->node_count; i++) {
        struct node *node = &d->nodes[i];
        if (node->root == i) { // the earliest: answers do not overlap, and a root comes before the rest of its group
            ADD(d, wanted, wanted_count, wanted_room,
                (struct wanted){node->start_us, node->end_us, node->key, node->model, node->piece, node->confidence, 0,
                                0});
            node->root = d->wanted_count - 1;
        } else {
            node->root = d->nodes[node->root].root;
            add_to_wanted(&d->wanted[node->root], node);
        }
        int open = is_open(d, node);
        if (open < 0)
            return open;
        d->wanted[node->root].open |= open;
    }
    return SL_OK;
}

// --- Writing what differs ---

// The old event that this one continues: the one of the smallest id that says the same here.
static void recognise(struct derivation *d, struct wanted *event)
{
    struct known *best = NULL;
    for (size_t i = 0; i < d->known_count; i++) {
        struct known *old = &d->known[i];
        if (!old->taken && old->key == event->key && old->start_us <= event->end_us + d->pair_us &&
            old->end_us >= event->start_us - d->pair_us && (!best || old->id < best->id))
            best = old;
    }
    if (best)
        best->taken = 1;
    event->id = best ? best->id : 0;
}

// Text of the event's first piece, and what of it is indexed; both to be freed.
static int read_text(struct derivation *d, int64_t piece, char **text, char **words)
{
    sqlite3_stmt *row;
    *text = *words = NULL;
    int status = store_prepare(d->db, &row, "SELECT text FROM piece WHERE id = ?1", BIND(bind_int(piece)), d->e);
    if (status != SL_OK)
        return status;
    status = store_step(d->db, row, d->e);
    if (status > 0 && !(*text = strdup(store_text(row, 0))))
        status = sl_fail(d->e, SL_ERR_MEMORY, "deriving events: out of memory");
    store_done(d->db, row);
    return *text ? text_words(*text, words, d->e) : status;
}

static int write_event(struct derivation *d, struct wanted *event)
{
    char *text, *words;
    int status = read_text(d, event->first_piece, &text, &words);
    if (status == SL_OK && event->id)
        status = store_run(d->db,
                           "UPDATE event SET revision = revision + 1, start_us = ?2, end_us = ?3, confidence = ?4,"
                           " model = ?5, open = ?6, text = ?7, words = ?8,"
                           " span_class = (?3 - ?2 > 60000000) + (?3 - ?2 > 600000000) WHERE id = ?1 AND"
                           " (start_us, end_us, confidence, model, open, text) IS NOT (?2, ?3, ?4, ?5, ?6, ?7)",
                           BIND(bind_int(event->id), bind_int(event->start_us), bind_int(event->end_us),
                                bind_real(event->confidence), bind_int(event->model), bind_int(event->open),
                                bind_text(text), bind_text(words)),
                           d->e);
    else if (status == SL_OK)
        status = store_run(d->db,
                           "INSERT INTO event (segment, task, start_us, end_us, confidence, model, open, text, words,"
                           " text_key, span_class) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10,"
                           " (?4 - ?3 > 60000000) + (?4 - ?3 > 600000000))",
                           BIND(bind_int(d->segment), bind_int(d->task), bind_int(event->start_us),
                                bind_int(event->end_us), bind_real(event->confidence), bind_int(event->model),
                                bind_int(event->open), bind_text(text), bind_text(words), bind_int(event->key)),
                           d->e);
    if (status == SL_OK && !event->id)
        event->id = sqlite3_last_insert_rowid(d->db->sqlite);
    free(text);
    free(words);
    return status;
}

static int write_parts(struct derivation *d)
{
    int status = SL_OK;
    for (size_t i = 0; i < d->node_count && status == SL_OK; i++) {
        const struct node *node = &d->nodes[i];
        int64_t event = d->wanted[node->root].id;
        if (event != node->event)
            status = store_run(d->db, "INSERT OR REPLACE INTO part (answer, piece, event) VALUES (?1, ?2, ?3)",
                               BIND(bind_int(node->answer), bind_int(node->piece), bind_int(event)), d->e);
    }
    return status;
}

static int by_time(const void *left, const void *right)
{
    const struct wanted *a = *(struct wanted *const *)left, *b = *(struct wanted *const *)right;
    int order = compare(a->start_us, b->start_us);
    return order ? order : compare(a->key, b->key);
}

static int write_events(struct derivation *d)
{
    struct wanted **order = malloc((d->wanted_count + 1) * sizeof *order);
    if (!order)
        return sl_fail(d->e, SL_ERR_MEMORY, "deriving events: out of memory");
    for (size_t i = 0; i < d->wanted_count; i++)
        order[i] = &d->wanted[i];
    qsort(order, d->wanted_count, sizeof *order, by_time); // so that new ids ascend with time
    int status = SL_OK;
    for (size_t i = 0; i < d->wanted_count && status == SL_OK; i++) {
        recognise(d, order[i]);
        status = write_event(d, order[i]);
    }
    free(order);
    if (status == SL_OK)
        status = write_parts(d);
    for (size_t i = 0; i < d->known_count && status == SL_OK; i++)
        if (!d->known[i].taken)
            status = store_run(d->db, "DELETE FROM event WHERE id = ?1", BIND(bind_int(d->known[i].id)), d->e);
    return status;
}

// --- The door of this file ---

// `window` 0: no new answer.
static int derive(struct derivation *d, int64_t window, int64_t start_us, int64_t end_us)
{
    int status = begin(d);
    if (status == SL_OK)
        status = read_answers(d, start_us, end_us);
    if (status == SL_OK)
        status = read_events(d);
    if (status == SL_OK && window)
        status = take_over(d, window, start_us, end_us);
    if (status == SL_OK)
        status = group(d);
    if (status == SL_OK)
        status = write_events(d);
    finish(d);
    return status;
}

int derive_answer(struct sl_db *db, int64_t segment, int64_t task, int64_t window, int64_t start_us, int64_t end_us,
                  struct sl_error *e)
{
    struct derivation d = {.db = db, .e = e, .segment = segment, .task = task};
    return derive(&d, window, start_us, end_us);
}

int derive_again(struct sl_db *db, int64_t segment, int64_t task, int64_t start_us, int64_t end_us, struct sl_error *e)
{
    struct derivation d = {.db = db, .e = e, .segment = segment, .task = task};
    return derive(&d, 0, start_us, end_us);
}

int derive_at_all_tasks(struct sl_db *db, int64_t segment, int64_t at_us, struct sl_error *e)
{
    sqlite3_stmt *task;
    int status = store_prepare(db, &task, "SELECT id FROM task", NULL, e);
    if (status != SL_OK)
        return status;
    while ((status = store_step(db, task, e)) > 0 &&
           (status = derive_again(db, segment, sqlite3_column_int64(task, 0), at_us, at_us, e)) == SL_OK)
        ;
    store_done(db, task);
    return status;
}

// 1 if the index holds the event as wanted.
static int is_as_wanted(struct derivation *d, const struct wanted *event)
{
    int64_t one;
    return store_value(d->db, &one,
                       "SELECT 1 FROM event JOIN piece ON piece.id = ?2 WHERE event.id = ?1 AND event.text = piece.text"
                       " AND (event.start_us, event.end_us, event.text_key, event.confidence, event.model, event.open)"
                       " IS (?3, ?4, ?5, ?6, ?7, ?8)",
                       BIND(bind_int(event->id), bind_int(event->first_piece), bind_int(event->start_us),
                            bind_int(event->end_us), bind_int(event->key), bind_real(event->confidence),
                            bind_int(event->model), bind_int(event->open)),
                       d->e);
}

static int count_differences(struct derivation *d, int64_t *differences)
{
    int64_t events = 0;
    int status = store_value(d->db, &events, "SELECT count(*) FROM event WHERE segment = ?1 AND task = ?2",
                             BIND(bind_int(d->segment), bind_int(d->task)), d->e);
    if (status < 0)
        return status;
    *differences = llabs(events - (int64_t)d->wanted_count);
    for (size_t i = 0; i < d->node_count; i++) {
        struct wanted *event = &d->wanted[d->nodes[i].root];
        if (!event->id)
            event->id = d->nodes[i].event;
        *differences += d->nodes[i].event == 0 || event->id != d->nodes[i].event;
    }
    for (size_t i = 0; i < d->wanted_count; i++) {
        status = is_as_wanted(d, &d->wanted[i]);
        if (status < 0)
            return status;
        *differences += !status;
    }
    return SL_OK;
}

int derive_compare(struct sl_db *db, int64_t segment, int64_t task, int64_t *differences, struct sl_error *e)
{
    struct derivation d = {.db = db, .e = e, .segment = segment, .task = task};
    int status = begin(&d);
    if (status == SL_OK)
        status = read_nodes(&d, NODES_OF_ANSWERS " WHERE answer.segment = ?1 AND answer.task = ?2", segment);
    if (status == SL_OK)
        status = group(&d);
    if (status == SL_OK)
        status = count_differences(&d, differences);
    finish(&d);
    return status;
}
