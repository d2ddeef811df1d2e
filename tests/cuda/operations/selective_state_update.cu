#include <ssmkit/cuda/selective_state_update.cuh>

#include "device.cuh"

DEVICE_OPERATION(selective_state_update, selective_state_update_args<float>, selective_state_update_args<bfloat16>,
                 selective_state_update_args<float16>)
