// SPDX-License-Identifier: Apache-2.0
#include <libavutil/log.h>
#include <stdio.h>
#include <string.h>

#include "src/commands.h"
#include "src/options.h"
#include "src/version.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
} commands[] = {
    {"index", sl_cmd_index}, {"watch", sl_cmd_watch}, {"query", sl_cmd_query}, {"check", sl_cmd_check},
    {"info", sl_cmd_info},   {"bench", sl_cmd_bench}, {"help", sl_cmd_help},
};

static int asks_for_help(const char *argument)
{
    return strcmp(argument, "--help") == 0 || strcmp(argument, "-h") == 0;
}

static int run(int argc, char **argv)
{
    const char *name = argv[1];
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(name, commands[i].name) == 0) {
            int helps = commands[i].run != sl_cmd_help && argc > 2 && asks_for_help(argv[2]);
            return helps ? sl_cmd_help(2, argv) : commands[i].run(argc - 1, argv + 1);
        }
    }
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0) {
        return sl_version_print();
    }
    if (asks_for_help(name)) {
        return sl_cmd_help(1, argv + 1);
    }
    struct sl_error error;
    sl_fail(&error, SL_ERR_USAGE, "%s: no such command; see 'scenelog help'", name);
    return sl_report(&error);
}

int main(int argc, char **argv)
{
    av_log_set_level(AV_LOG_QUIET); // what matters of FFmpeg's findings comes back as errors, holes and notes
    if (argc < 2) {
        fputs("scenelog: what to do? See 'scenelog help'\n", stderr);
        return sl_exit_code(SL_ERR_USAGE);
    }
    int code = run(argc, argv);
    if (fflush(stdout) != 0 || ferror(stdout)) { // a full disk or a closed pipe: the results did not arrive
        struct sl_error error;
        sl_fail(&error, SL_ERR_IO, "standard output: could not be written");
        return code != 0 ? code : sl_report(&error);
    }
    return code;
}
