// SPDX-License-Identifier: Apache-2.0
#include "cuda/boxes.h"

#include <string.h>

typedef CUresult (*encode_function)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *,
                                    const cuuint64_t *, const cuuint32_t *, const cuuint32_t *, CUtensorMapInterleave,
                                    CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

// The driver's, found by way of the runtime, as scenelog is not linked against the driver.
static encode_function find_encode(struct sl_stream *stream)
{
    enum cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
    void *symbol = NULL;
    encode_function encode = NULL;
    cudaError_t code =
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &symbol, 12000, cudaEnableDefault, &found);
    if (!cuda_check(stream, code, "finding cuTensorMapEncodeTiled")) {
        return NULL;
    }
    if (found != cudaDriverEntryPointSuccess) {
        cuda_fail(stream, SL_ERR_DEVICE, "the NVIDIA driver has no cuTensorMapEncodeTiled: update it");
        return NULL;
    }
    memcpy(&encode, &symbol, sizeof encode); // ISO C has no cast from an object to a function
    return encode;
}

int cuda_boxes(struct sl_stream *stream, CUtensorMap *boxes, const void *data, int64_t rows, int64_t columns,
               int box_rows)
{
    encode_function encode = find_encode(stream);
    if (encode == NULL) {
        return 0;
    }
    cuuint64_t size[2] = {(cuuint64_t)columns, (cuuint64_t)rows}, stride[1] = {(cuuint64_t)columns * 2};
    cuuint32_t box[2] = {CUDA_BOX_COLUMNS, (cuuint32_t)box_rows}, step[2] = {1, 1};
    void *address = NULL;
    memcpy(&address, &data, sizeof address); // only read, but the driver's parameter is not const
    CUresult code = encode(boxes, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, address, size, stride, box, step,
                           CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                           CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (code != CUDA_SUCCESS) {
        cuda_fail(stream, SL_ERR_INTERNAL, "a tensor map of %lld rows of %lld was refused (%d)", (long long)rows,
                  (long long)columns, (int)code);
    }
    return code == CUDA_SUCCESS;
}
