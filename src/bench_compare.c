// SPDX-License-Identifier: Apache-2.0
#include "src/bench_compare.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

// What the measuring process says.
struct report {
    int status;
    struct sl_error error;
    struct sl_bench_figures figures;
};

static int write_all(int to, const void *data, size_t size)
{
    for (const char *p = data; size > 0;) {
        ssize_t n = write(to, p, size);
        if (n < 0 && errno != EINTR) {
            return -1;
        }
        p += n > 0 ? n : 0;
        size -= n > 0 ? (size_t)n : 0;
    }
    return 0;
}

static int read_all(int from, void *data, size_t size)
{
    for (char *p = data; size > 0;) {
        ssize_t n = read(from, p, size);
        if (n == 0 || (n < 0 && errno != EINTR)) {
            return -1;
        }
        p += n > 0 ? n : 0;
        size -= n > 0 ? (size_t)n : 0;
    }
    return 0;
}

static void measure_and_tell(const struct sl_bench_options *options, int to)
{
    struct report report = {0};
    report.status = sl_bench_model(options, &report.figures, &report.error);
    _exit(write_all(to, &report, sizeof report) == 0 ? 0 : 1);
}

static int measure(const struct sl_bench_options *options, const char *what, struct sl_bench_figures *out,
                   struct sl_error *error)
{
    struct report report;
    int ends[2];
    if (pipe(ends) != 0) {
        return sl_fail(error, SL_ERR_IO, "no pipe could be made: %s", strerror(errno));
    }
    pid_t child = fork();
    if (child == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL); // not on the device when nobody waits any more
        measure_and_tell(options, ends[1]);
    }
    close(ends[1]);
    int told = child > 0 && read_all(ends[0], &report, sizeof report) == 0;
    close(ends[0]);
    while (child > 0 && waitpid(child, NULL, 0) < 0 && errno == EINTR) {
    }
    if (child < 0) {
        return sl_fail(error, SL_ERR_MEMORY, "no process could be started: %s", strerror(errno));
    }
    if (!told) { // as when the system has killed it for its memory
        return sl_fail(error, SL_ERR_MEMORY, "%s: the process that measured it is gone; was memory too small?", what);
    }
    *out = report.figures;
    *error = report.error;
    return report.status == SL_OK ? SL_OK : sl_fail_at(error, "%s", what);
}

int sl_bench_compare(const struct sl_bench_options *options, const char *const what[SL_BENCH_COMPARED],
                     struct sl_bench_comparison *out, struct sl_error *error)
{
    struct sl_bench_options o = *options;
    o.parts = SL_BENCH_ANSWER;
    o.picture_width = o.picture_width > 0 ? o.picture_width : SL_BENCH_PICTURE_WIDTH;
    o.picture_height = o.picture_height > 0 ? o.picture_height : SL_BENCH_PICTURE_HEIGHT;
    o.answer_tokens = o.answer_tokens > 0 ? o.answer_tokens : SL_BENCH_ANSWER_TOKENS;
    *out = (struct sl_bench_comparison){.picture_width = o.picture_width,
                                        .picture_height = o.picture_height,
                                        .answer_tokens = o.answer_tokens,
                                        .repeat = o.repeat};
    int status = SL_OK;
    for (int i = 0; i < SL_BENCH_COMPARED && status == SL_OK; i++) {
        struct stat st;
        int is_folder = stat(what[i], &st) == 0 && S_ISDIR(st.st_mode);
        o.model_dir = is_folder ? what[i] : NULL;
        o.shape = is_folder ? NULL : what[i]; // whoever reads it says what is wrong with it
        status = measure(&o, what[i], &out->model[i], error);
    }
    return status;
}
