// SPDX-License-Identifier: Apache-2.0
// The commands of the program, one file each. argv[0] is the command's own name; each returns the exit code.
// Results go to stdout, diagnostics to stderr as one line "scenelog: ...". They never call exit().
#ifndef SL_SRC_COMMANDS_H
#define SL_SRC_COMMANDS_H

int sl_cmd_index(int argc, char **argv);
int sl_cmd_watch(int argc, char **argv);
int sl_cmd_query(int argc, char **argv);
int sl_cmd_check(int argc, char **argv);
int sl_cmd_info(int argc, char **argv);
int sl_cmd_bench(int argc, char **argv);
int sl_cmd_help(int argc, char **argv);

#endif
