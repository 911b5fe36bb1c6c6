// SPDX-License-Identifier: Apache-2.0
#include "decode/v4l2.h"

#include <string.h>

#include <libavutil/avstring.h>

#include "config.h"

#if SL_HAVE_AVDEVICE
#include <dlfcn.h>
#include <libavdevice/avdevice.h>
#endif

const char *sl_v4l2_path(const char *url)
{
    const char *path = NULL;
    if (av_strstart(url, "v4l2:", &path)) {
        return path;
    }
    return av_strstart(url, "/dev/video", NULL) ? url : NULL;
}

#if SL_HAVE_AVDEVICE

#define LIBRARY "libavdevice.so." AV_STRINGIFY(LIBAVDEVICE_VERSION_MAJOR)

// The library stays open: FFmpeg keeps pointers into it.
int sl_v4l2_format(const char *name, const AVInputFormat **out, struct sl_error *error)
{
    void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    void *found = library != NULL ? dlsym(library, "avdevice_register_all") : NULL;
    if (found == NULL) {
        return sl_fail(error, SL_ERR_NO_VIDEO, "%s: V4L2 devices need " LIBRARY ", which cannot be loaded", name);
    }
    void (*register_all)(void);
    memcpy(&register_all, &found, sizeof register_all); // ISO C has no such cast
    register_all();
    *out = av_find_input_format("v4l2");
    return *out != NULL ? SL_OK
                        : sl_fail(error, SL_ERR_NO_VIDEO, "%s: this FFmpeg was built without V4L2 devices", name);
}

#else

int sl_v4l2_format(const char *name, const AVInputFormat **out, struct sl_error *error)
{
    *out = NULL;
    return sl_fail(error, SL_ERR_NO_VIDEO, "%s: built without V4L2 devices (configure found no libavdevice)", name);
}

#endif
