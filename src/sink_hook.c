// SPDX-License-Identifier: Apache-2.0
// Sinks without a library of their own: lines on standard output; a command, which gets the event as JSON on its
// standard input; an HTTP POST of it.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <libavformat/avio.h>
#include <libavutil/dict.h>
#include <libavutil/error.h>
#include <libavutil/time.h>

#include "decode/decode.h"
#include "src/sink.h"

extern char **environ;

static void close_nothing(struct sl_sink *sink)
{
    (void)sink;
}

// ---- Lines

static int deliver_line(struct sl_sink *sink, const struct sl_sink_message *message, struct sl_error *error)
{
    (void)sink;
    if (fprintf(stdout, "%s\n", message->text) < 0 || fflush(stdout) != 0) {
        clearerr(stdout); // the next reader may come: a named pipe
        return sl_fail(error, SL_ERR_IO, "could not be written");
    }
    return SL_OK;
}

int sl_sink_open_lines(struct sl_sink *sink, const struct sl_sinks_options *options, struct sl_error *error)
{
    (void)options, (void)error;
    sink->deliver = deliver_line;
    sink->close = close_nothing;
    return SL_OK;
}

// ---- A command

// In a process group of its own, so that what it starts ends with it; its output goes where diagnostics go.
static int spawn_shell(const char *command, int input, pid_t *pid)
{
    char *const arguments[] = {"sh", "-c", (char *)command, NULL};
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t defaults;
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE);
    if (posix_spawn_file_actions_init(&files) != 0) {
        return ENOMEM;
    }
    int code = posix_spawnattr_init(&attributes);
    if (code == 0) {
        code = posix_spawn_file_actions_adddup2(&files, input, STDIN_FILENO);
        code = code != 0 ? code : posix_spawn_file_actions_adddup2(&files, STDERR_FILENO, STDOUT_FILENO);
        code = code != 0 ? code : posix_spawn_file_actions_addclosefrom_np(&files, 3);
        code = code != 0 ? code : posix_spawnattr_setpgroup(&attributes, 0);
        code = code != 0 ? code : posix_spawnattr_setsigdefault(&attributes, &defaults);
        code = code != 0 ? code : posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF);
        code = code != 0 ? code : posix_spawn(pid, "/bin/sh", &files, &attributes, arguments, environ);
        posix_spawnattr_destroy(&attributes);
    }
    posix_spawn_file_actions_destroy(&files);
    return code;
}

static int await_child(pid_t pid, int64_t timeout_us, struct sl_error *error)
{
    int64_t until_us = av_gettime_relative() + timeout_us;
    int result = 0;
    while (waitpid(pid, &result, WNOHANG) == 0) {
        if (av_gettime_relative() > until_us) {
            (void)kill(-pid, SIGKILL); // fails when it has just ended
            (void)waitpid(pid, &result, 0);
            return sl_fail(error, SL_ERR_IO, "the command took longer than %.0f s and was killed",
                           (double)timeout_us / 1e6);
        }
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    if (WIFSIGNALED(result)) {
        return sl_fail(error, SL_ERR_IO, "the command was killed by signal %d", WTERMSIG(result));
    }
    if (WEXITSTATUS(result) != 0) {
        return sl_fail(error, SL_ERR_IO, "the command ended with status %d", WEXITSTATUS(result));
    }
    return SL_OK;
}

static int run_command(struct sl_sink *sink, const struct sl_sink_message *message, struct sl_error *error)
{
    int ends[2];
    pid_t pid = 0;
    if (pipe2(ends, O_CLOEXEC) != 0) {
        return sl_fail(error, SL_ERR_IO, "no pipe: %s", strerror(errno));
    }
    // An event is far shorter than what a pipe holds, so this does not wait for the reader.
    size_t size = strlen(message->text);
    ssize_t written = write(ends[1], message->text, size);
    close(ends[1]);
    int code = spawn_shell(sink->options->on_event, ends[0], &pid);
    close(ends[0]);
    if (code != 0 || written != (ssize_t)size) {
        return sl_fail(error, SL_ERR_IO, "the command could not be started: %s", strerror(code != 0 ? code : EIO));
    }
    return await_child(pid, sink->options->timeout_us, error);
}

// ---- A URL

static int is_late(void *until_us)
{
    return av_gettime_relative() > *(int64_t *)until_us;
}

static char *hexadecimal(const char *text)
{
    size_t size = strlen(text);
    char *out = malloc(size * 2 + 1);
    for (size_t i = 0; out != NULL && i < size; i++) {
        sprintf(out + 2 * i, "%02x", (unsigned char)text[i]);
    }
    return out;
}

static int post(struct sl_sink *sink, const struct sl_sink_message *message, struct sl_error *error)
{
    int64_t until_us = av_gettime_relative() + sink->options->timeout_us;
    AVIOInterruptCB interrupt = {is_late, &until_us};
    AVIOContext *io = NULL;
    AVDictionary *options = NULL;
    char *body = hexadecimal(message->text);
    int code = body != NULL ? 0 : AVERROR(ENOMEM);
    code = code < 0 ? code : av_dict_set(&options, "post_data", body, 0);
    code = code < 0 ? code : av_dict_set(&options, "headers", "Content-Type: application/json\r\n", 0);
    code = code < 0 ? code : avio_open2(&io, sink->options->on_event, AVIO_FLAG_READ, &interrupt, &options);
    av_dict_free(&options);
    free(body);
    if (code < 0) {
        char reason[AV_ERROR_MAX_STRING_SIZE] = "", shown[200];
        av_strerror(code, reason, sizeof reason);
        sl_live_redact(sink->options->on_event, shown, sizeof shown);
        return sl_fail(error, SL_ERR_IO, "%s: %s", shown, code == AVERROR_EXIT ? "no answer in time" : reason);
    }
    avio_closep(&io);
    return SL_OK;
}

int sl_sink_open_hook(struct sl_sink *sink, const struct sl_sinks_options *options, struct sl_error *error)
{
    (void)error;
    int is_url = strncmp(options->on_event, "http://", 7) == 0 || strncmp(options->on_event, "https://", 8) == 0;
    sink->deliver = is_url ? post : run_command;
    sink->close = close_nothing;
    return SL_OK;
}
