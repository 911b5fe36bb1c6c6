// SPDX-License-Identifier: Apache-2.0
// Events as text, and whether other programs (jq, ffprobe, python's csv) read the same out of it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/format.h"

static const struct sl_db_event plain = {
    .id = 7,
    .revision = 2,
    .task = 1,
    .media = 1,
    .source = "film.mp4",
    .start_us = 12345678,
    .end_us = 3723500000,
    .wall_start_us = SL_NO_TIME,
    .wall_end_us = SL_NO_TIME,
    .text = "A red circle appears.",
    .confidence = 0.93125,
    .open = 1,
    .model = "stub",
};

static struct sl_db_event hard(void)
{
    struct sl_db_event event = plain;
    event.id = 8;
    event.source = "a,\"b\"";
    event.text = "says \"1=2; #3\", \\o/\n<b> & -->\x1b[2J 红灯 \xff.";
    event.confidence = -1;
    event.open = 0;
    event.wall_start_us = 1700000000250000;
    event.wall_end_us = 1700003711404322;
    return event;
}

static char *format(enum sl_format how, const struct sl_db_event *events, int count)
{
    struct sl_error e;
    char *text;
    size_t size;
    FILE *file = open_memstream(&text, &size);
    struct sl_writer *writer = sl_writer_create(file, how, NULL, &e);
    assert_non_null(writer);
    for (int i = 0; i < count; i++)
        assert_int_equal(sl_writer_add(writer, &events[i], &e), SL_OK);
    sl_writer_end(writer);
    sl_writer_destroy(writer);
    fclose(file);
    return text;
}

static void assert_format(enum sl_format how, const struct sl_db_event *events, int count, const char *expected)
{
    char *got = format(how, events, count);
    assert_string_equal(got, expected);
    free(got);
}

static void test_names(void **state)
{
    (void)state;
    struct sl_error e;
    enum sl_format format;
    assert_int_equal(sl_format_parse("vtt", &format, &e), SL_OK);
    assert_int_equal(format, SL_FORMAT_VTT);
    assert_int_equal(sl_format_parse("chapters", &format, &e), SL_OK);
    assert_int_equal(format, SL_FORMAT_CHAPTERS);
    assert_int_equal(sl_format_parse("xml", &format, &e), SL_ERR_USAGE);
    assert_false(sl_format_is_of_one_file(SL_FORMAT_CSV));
    assert_true(sl_format_is_of_one_file(SL_FORMAT_SRT));
}

static void test_table(void **state)
{
    (void)state;
    assert_format(SL_FORMAT_TABLE, NULL, 0, "");
    assert_format(SL_FORMAT_TABLE, &plain, 1,
                  "START         END           SOURCE    EVENT\n"
                  "00:00:12.345  01:02:03.500  film.mp4  A red circle appears.\n");
    struct sl_db_event two[2] = {plain, hard()};
    two[0].source = "红灯";
    assert_format(
        SL_FORMAT_TABLE, two, 2,
        "START         END           WALL                      SOURCE  EVENT\n"
        "00:00:12.345  01:02:03.500                            红灯    A red circle appears.\n"
        "00:00:12.345  01:02:03.500  2023-11-14T22:13:20.250Z  a,\"b\"   says \"1=2; #3\", \\o/ <b> & --> [2J "
        "红灯 \xef\xbf\xbd.\n");
}

// Beyond the rows that settle the widths, all rows still come, once and in order.
static void test_long_table(void **state)
{
    (void)state;
    enum { ROWS = 600 };
    struct sl_db_event *events = calloc(ROWS, sizeof *events);
    assert_non_null(events);
    for (int i = 0; i < ROWS; i++) {
        events[i] = plain;
        events[i].start_us = (int64_t)i * 1000000;
    }
    char *text = format(SL_FORMAT_TABLE, events, ROWS);
    int rows = 0;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"), rows++) {
        int hours, minutes, seconds;
        if (rows == 0)
            continue;
        assert_int_equal(sscanf(line, "%d:%d:%d", &hours, &minutes, &seconds), 3);
        assert_int_equal(hours * 3600 + minutes * 60 + seconds, rows - 1);
        assert_int_equal(strlen(line), strlen("00:00:12.345  01:02:03.500  film.mp4  A red circle appears."));
    }
    assert_int_equal(rows, ROWS + 1);
    free(text);
    free(events);
}

static void test_jsonl(void **state)
{
    (void)state;
    struct sl_db_event two[2] = {plain, hard()};
    assert_format(SL_FORMAT_JSONL, two, 2,
                  "{\"id\":7,\"source\":\"film.mp4\",\"start_us\":12345678,\"end_us\":3723500000,"
                  "\"start\":\"00:00:12.345\",\"end\":\"01:02:03.500\",\"text\":\"A red circle appears.\","
                  "\"confidence\":0.9313,\"revision\":2,\"open\":true,\"wall_start\":null,\"wall_end\":null,"
                  "\"model\":\"stub\",\"task\":1}\n"
                  "{\"id\":8,\"source\":\"a,\\\"b\\\"\",\"start_us\":12345678,\"end_us\":3723500000,"
                  "\"start\":\"00:00:12.345\",\"end\":\"01:02:03.500\","
                  "\"text\":\"says \\\"1=2; #3\\\", \\\\o/ <b> & --> [2J 红灯 \xef\xbf\xbd.\","
                  "\"confidence\":null,\"revision\":2,\"open\":false,\"wall_start\":\"2023-11-14T22:13:20.250Z\","
                  "\"wall_end\":\"2023-11-14T23:15:11.404Z\",\"model\":\"stub\",\"task\":1}\n");
}

static void test_csv(void **state)
{
    (void)state;
    struct sl_db_event event = hard();
    assert_format(
        SL_FORMAT_CSV, &event, 1,
        "id,source,start,end,start_us,end_us,wall_start,wall_end,text,confidence,revision,open,model,task\r\n"
        "8,\"a,\"\"b\"\"\",00:00:12.345,01:02:03.500,12345678,3723500000,2023-11-14T22:13:20.250Z,"
        "2023-11-14T23:15:11.404Z,\"says \"\"1=2; #3\"\", \\o/ <b> & --> [2J 红灯 \xef\xbf\xbd.\",,2,0,stub,1\r\n");
}

static void test_players(void **state)
{
    (void)state;
    struct sl_db_event two[2] = {plain, hard()};
    two[1].start_us = 5000200;
    two[1].end_us = 5000300; // shorter than a millisecond
    assert_format(SL_FORMAT_SRT, two, 2,
                  "1\n00:00:12,345 --> 01:02:03,500\nA red circle appears.\n\n"
                  "2\n00:00:05,000 --> 00:00:05,001\nsays \"1=2; #3\", \\o/ <b> & --> [2J 红灯 \xef\xbf\xbd.\n\n");
    assert_format(SL_FORMAT_VTT, two, 2,
                  "WEBVTT\n\n00:00:12.345 --> 01:02:03.500\nA red circle appears.\n\n"
                  "00:00:05.000 --> 00:00:05.001\n"
                  "says \"1=2; #3\", \\o/ &lt;b&gt; &amp; --&gt; [2J 红灯 \xef\xbf\xbd.\n\n");
    assert_format(SL_FORMAT_CHAPTERS, two, 2,
                  ";FFMETADATA1\n"
                  "[CHAPTER]\nTIMEBASE=1/1000000\nSTART=12345678\nEND=3723500000\ntitle=A red circle appears.\n"
                  "[CHAPTER]\nTIMEBASE=1/1000000\nSTART=5000200\nEND=5000300\n"
                  "title=says \"1\\=2\\; \\#3\", \\\\o/ <b> & --> [2J 红灯 \xef\xbf\xbd.\n");
    assert_format(SL_FORMAT_VTT, NULL, 0, "WEBVTT\n\n");
    assert_format(SL_FORMAT_CHAPTERS, NULL, 0, ";FFMETADATA1\n");
}

// What `command` (with %s for a file of two events in the format) prints; NULL if it is not installed.
static void assert_read_by(const char *program, const char *command, enum sl_format how, const char *suffix,
                           const char *expected)
{
    char path[64], line[512], got[2048] = "";
    snprintf(line, sizeof line, "command -v %s >/dev/null", program);
    if (system(line) != 0) {
        print_message("%s is not installed\n", program);
        return;
    }
    snprintf(path, sizeof path, "/tmp/scenelog-format-XXXXXX%s", suffix);
    int descriptor = mkstemps(path, (int)strlen(suffix));
    FILE *file = fdopen(descriptor, "w");
    assert_non_null(file);
    struct sl_db_event two[2] = {plain, hard()};
    two[0].end_us = 14000000;
    two[1].start_us = 20000000;
    two[1].end_us = 30000000;
    two[1].text = "says \"1=2; #3\", \\o/ & 红灯";
    char *text = format(how, two, 2);
    fputs(text, file);
    free(text);
    fclose(file);
    snprintf(line, sizeof line, command, path);
    FILE *output = popen(line, "r");
    assert_non_null(output);
    got[fread(got, 1, sizeof got - 1, output)] = 0;
    assert_int_equal(pclose(output), 0);
    unlink(path);
    assert_string_equal(got, expected);
}

static void test_other_programs_read_it(void **state)
{
    (void)state;
    const char *const packets =
        "ffprobe -v error -show_packets -show_entries packet=pts_time,duration_time -of csv=p=0 %s";
    assert_read_by("jq", "jq -r '[.id, .text, .confidence, .wall_start] | @json' %s", SL_FORMAT_JSONL, ".jsonl",
                   "[7,\"A red circle appears.\",0.9313,null]\n"
                   "[8,\"says \\\"1=2; #3\\\", \\\\o/ & 红灯\",null,\"2023-11-14T22:13:20.250Z\"]\n");
    assert_read_by("python3",
                   "python3 -c \"import csv,sys; [print(r['source'], r['text'], r['open'], sep='|') for r in "
                   "csv.DictReader(open(sys.argv[1], newline='', encoding='utf-8'), strict=True)]\" %s",
                   SL_FORMAT_CSV, ".csv",
                   "film.mp4|A red circle appears.|1\na,\"b\"|says \"1=2; #3\", \\o/ & 红灯|0\n");
    assert_read_by("ffprobe", packets, SL_FORMAT_SRT, ".srt", "12.345000,1.655000\n20.000000,10.000000\n");
    assert_read_by("ffprobe", packets, SL_FORMAT_VTT, ".vtt", "12.345000,1.655000\n20.000000,10.000000\n");
    assert_read_by("ffprobe",
                   "ffprobe -v error -show_chapters -show_entries chapter=start_time,end_time:chapter_tags=title "
                   "-of compact=p=0:nk=1 %s",
                   SL_FORMAT_CHAPTERS, ".ffmeta",
                   "12.345678|14.000000|A red circle appears.\n"
                   "20.000000|30.000000|says \"1=2; #3\", \\\\o/ & 红灯\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_long_table),
        cmocka_unit_test(test_jsonl),
        cmocka_unit_test(test_csv),
        cmocka_unit_test(test_players),
        cmocka_unit_test(test_other_programs_read_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
