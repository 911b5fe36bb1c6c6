// SPDX-License-Identifier: Apache-2.0
// The device around the operations: memory, streams that fail, fences, and several threads at once.
#include "tests/unit/cpu_tools.h"

#include <pthread.h>

static void test_info(void **state)
{
    (void)state;
    struct sl_device_info info;
    device->ops->info(device, &info);
    assert_int_equal(info.threads, 2);
    assert_true(info.memory_bytes > 0 && info.name[0] && (info.compute == SL_BF16 || info.compute == SL_F32));
    assert_null(device->ops->native_context(device));
    assert_int_equal(device->ops->graph_begin(stream), 0);
}

static void test_memory(void **state)
{
    (void)state;
    char host[100], back[100];
    void *a, *b;
    memset(host, 7, sizeof host);
    assert_int_equal(device->ops->alloc(device, 100, &a, NULL), SL_OK);
    assert_int_equal(device->ops->alloc(device, 0, &b, NULL), SL_OK);
    assert_int_equal((uintptr_t)a % 64, 0);
    device->ops->upload(stream, a, host, 100);
    device->ops->zero(stream, (char *)a + 50, 50);
    device->ops->copy(stream, (char *)a + 99, a, 1);
    device->ops->download(stream, back, a, 100);
    assert_no_failure();
    assert_true(back[0] == 7 && back[49] == 7 && back[50] == 0 && back[98] == 0 && back[99] == 7);
    device->ops->release(device, a);
    device->ops->release(device, b);
    device->ops->release(device, NULL);
    struct sl_error error;
    assert_int_equal(device->ops->alloc(device, -1, &a, &error), SL_ERR_MEMORY);
    assert_null(a);
}

// A failure travels with a fence to the stream that waits for it.
static void test_failures_travel(void **state)
{
    (void)state;
    struct sl_stream *bad, *next;
    struct sl_fence *fence;
    struct sl_error error;
    struct sl_tensor t = random_tensor(SL_F32, 2, 2, 1);
    int32_t far[] = {99, 0};
    struct sl_tensor index = sl_tensor_1d(far, SL_I32, 2);
    assert_int_equal(device->ops->stream_create(device, &bad, NULL), SL_OK);
    assert_int_equal(device->ops->stream_create(device, &next, NULL), SL_OK);
    assert_int_equal(device->ops->fence_create(device, &fence, NULL), SL_OK);
    device->ops->fence_record(fence, bad);
    assert_int_equal(device->ops->fence_wait(fence, &error), SL_OK);
    device->ops->gather_rows(bad, &t, &index, &t);
    device->ops->fence_record(fence, bad);
    device->ops->fence_enqueue_wait(fence, next);
    assert_int_equal(device->ops->fence_wait(fence, &error), SL_ERR_INTERNAL);
    assert_int_equal(device->ops->wait(next, &error), SL_ERR_INTERNAL);
    assert_non_null(strstr(error.text, "99"));
    device->ops->fence_destroy(fence);
    device->ops->stream_destroy(bad);
    device->ops->stream_destroy(next);
    device->ops->stream_destroy(NULL);
    free(t.data);
}

struct shared {
    struct sl_linear *linear;
    struct sl_tensor x, y;
};

static void *many_products(void *argument)
{
    struct shared *s = argument;
    struct sl_stream *mine;
    struct sl_tensor y = copy_of(&s->y);
    intptr_t faults = device->ops->stream_create(device, &mine, NULL) != SL_OK;
    for (int i = 0; i < 50 && !faults; i++) {
        device->ops->zero(mine, y.data, sl_tensor_bytes(&y));
        device->ops->linear(mine, s->linear, &s->x, SL_EPILOGUE_GELU_TANH, NULL, &y);
        faults += device->ops->wait(mine, NULL) != SL_OK || memcmp(y.data, s->y.data, (size_t)sl_tensor_bytes(&y)) != 0;
    }
    device->ops->stream_destroy(mine);
    free(y.data);
    return (void *)faults;
}

// Equal work gives equal bits, whoever else is at it.
static void test_threads(void **state)
{
    (void)state;
    struct sl_tensor w = random_tensor(SL_BF16, 300, 200, 1);
    struct shared s = {NULL, random_tensor(SL_BF16, 90, 200, 1), random_tensor(SL_BF16, 90, 300, 1)};
    pthread_t thread[3];
    assert_int_equal(device->ops->linear_create(device, &w, 1, NULL, SL_BF16, &s.linear, NULL), SL_OK);
    device->ops->linear(stream, s.linear, &s.x, SL_EPILOGUE_GELU_TANH, NULL, &s.y);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(pthread_create(&thread[i], NULL, many_products, &s), 0);
    }
    for (int i = 0; i < 3; i++) {
        void *faults;
        pthread_join(thread[i], &faults);
        assert_null(faults);
    }
    device->ops->linear_destroy(s.linear);
    free(w.data);
    free(s.x.data);
    free(s.y.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_info),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_failures_travel),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
