// SPDX-License-Identifier: Apache-2.0
#include "src/version.h"

#include <cjson/cJSON.h>
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/avutil.h>
#include <sqlite3.h>
#include <stdio.h>
#include <utf8proc.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "config.h"
#if SL_HAVE_ONEDNN
#include <dnnl.h>
#endif

static void print_av(const char *name, unsigned version)
{
    printf("%-12s %u.%u.%u\n", name, AV_VERSION_MAJOR(version), AV_VERSION_MINOR(version), AV_VERSION_MICRO(version));
}

int sl_version_print(void)
{
    char pcre2[64] = "";
    pcre2_config(PCRE2_CONFIG_VERSION, pcre2);
    printf("scenelog %s\n", SL_VERSION);
    print_av("libavformat", avformat_version());
    print_av("libavcodec", avcodec_version());
    print_av("libavutil", avutil_version());
    printf("%-12s %s\n%-12s %s\n%-12s %s\n%-12s %s\n", "SQLite", sqlite3_libversion(), "cJSON", cJSON_Version(),
           "PCRE2", pcre2, "utf8proc", utf8proc_version());
#if SL_HAVE_ONEDNN
    const dnnl_version_t *dnnl = dnnl_version();
    printf("%-12s %d.%d.%d\n", "oneDNN", dnnl->major, dnnl->minor, dnnl->patch);
#else
    printf("%-12s not built in\n", "oneDNN");
#endif
    printf("%-12s %s\n", "CUDA", SL_HAVE_CUDA ? "built in" : "not built in");
    return 0;
}
