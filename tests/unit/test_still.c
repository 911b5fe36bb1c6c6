// SPDX-License-Identifier: Apache-2.0
// Leaving out still frame pairs: which are kept, and how far apart pictures are, against plain loops.
#include "src/still.h"
#include "tests/unit/cpu_tools.h"

static void check_kept(const char *changes, const char *wanted)
{
    float difference[32];
    int kept[32], pairs = (int)strlen(changes);
    char got[33] = {0};
    for (int i = 0; i < pairs; i++) {
        difference[i] = i == 0 ? INFINITY : changes[i] == 'x' ? 2.01f : 2;
    }
    int count = sl_still_keep(difference, pairs, 2, kept);
    memset(got, '-', (size_t)pairs);
    for (int i = 0; i < count; i++) {
        assert_true(i == 0 || kept[i] > kept[i - 1]);
        got[kept[i]] = 'k';
    }
    assert_string_equal(got, wanted);
}

static void keeps_changes_and_the_ends_of_stillness(void **state)
{
    (void)state;
    check_kept("x", "k");
    check_kept("x.", "kk");
    check_kept("x.....", "k----k");
    check_kept("xxxx", "kkkk");
    check_kept("x...x...", "k--kk--k");
    check_kept("x.x.x", "kkkkk");
    check_kept("x..xx..x", "k-kkk-kk");
}

static double naive_difference(const uint8_t *a, const uint8_t *b, int height, int width)
{
    double largest = 0;
    for (int y0 = 0; y0 < height; y0 += 16) {
        for (int x0 = 0; x0 < width; x0 += 16) {
            double sum = 0, count = 0;
            for (int y = y0; y < height && y < y0 + 16; y++) {
                for (int i = 3 * x0; i < 3 * width && i < 3 * (x0 + 16); i++, count++) {
                    sum += fabs((double)a[3 * width * y + i] - b[3 * width * y + i]);
                }
            }
            largest = fmax(largest, sum / count);
        }
    }
    return largest;
}

// Pictures that wander, a step of noise at a time, and come back; pairs that share pictures.
static void measures_from_what_was_shown_last(void **state)
{
    (void)state;
    enum { PICTURES = 12, PAIRS = 9, HEIGHT = 40, WIDTH = 56 };
    static uint8_t pixels[PICTURES][HEIGHT][WIDTH][3];
    int32_t pair[PAIRS][2];
    float got[PAIRS];
    uint8_t *bytes = &pixels[0][0][0][0];
    const int size = HEIGHT * WIDTH * 3;
    for (int i = 0; i < PICTURES * size; i++) {
        bytes[i] = (uint8_t)(i < size ? 60 + below(100) : bytes[i - size] + below(4));
    }
    memcpy(pixels[7], pixels[2], sizeof pixels[7]);
    for (int i = 0; i < 2 * PAIRS; i++) {
        (&pair[0][0])[i] = (int32_t)(i * (PICTURES - 1) / (2 * PAIRS - 1));
    }
    struct sl_tensor pictures = sl_tensor_4d(pixels, SL_U8, PICTURES, HEIGHT, WIDTH, 3);
    struct sl_tensor pairs = sl_tensor_2d(pair, SL_I32, PAIRS, 2), out = sl_tensor_1d(got, SL_F32, PAIRS);
    for (float level = 0; level < 12; level += 1.5f) {
        int shown = pair[0][1], changes = 0;
        device->ops->pair_differences(stream, &pictures, &pairs, level, &out);
        assert_no_failure();
        assert_true(isinf(got[0]));
        for (int i = 1; i < PAIRS; i++) {
            double want = 0;
            for (int k = 0; k < 2; k++) {
                want = fmax(want, naive_difference(bytes + pair[i][k] * size, bytes + shown * size, HEIGHT, WIDTH));
            }
            assert_true(fabs((double)got[i] - want) < 1e-5);
            changes += want > (double)level;
            shown = want > (double)level ? pair[i][1] : shown;
        }
        assert_true(level > 0 || changes > 4);
        assert_true(level < 10 || changes < 4);
    }
}

// A thing of 5 x 5 pixels in a large still picture.
static void sees_small_things(void **state)
{
    (void)state;
    enum { HEIGHT = 352, WIDTH = 640 };
    static uint8_t pixels[2][HEIGHT][WIDTH][3];
    int32_t pair[2][2] = {{0, 0}, {0, 1}};
    float got[2];
    memset(pixels, 90, sizeof pixels);
    for (int y = 0; y < 5; y++) {
        memset(pixels[1][200 + y][300], 150, 15);
    }
    struct sl_tensor pictures = sl_tensor_4d(pixels, SL_U8, 2, HEIGHT, WIDTH, 3);
    struct sl_tensor pairs = sl_tensor_2d(pair, SL_I32, 2, 2), out = sl_tensor_1d(got, SL_F32, 2);
    device->ops->pair_differences(stream, &pictures, &pairs, SL_STILL_AUTO, &out);
    assert_no_failure();
    assert_true(got[1] > SL_STILL_AUTO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keeps_changes_and_the_ends_of_stillness),
        cmocka_unit_test(measures_from_what_was_shown_last),
        cmocka_unit_test(sees_small_things),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
