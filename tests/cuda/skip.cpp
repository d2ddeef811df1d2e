// The tests of this folder end here, as skipped, on a machine without a device.

#include <cstdio>
#include <cstdlib>

#include <cuda_runtime.h>

namespace {

const bool there = [] {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0) return true;
    std::puts("skipped: no CUDA device");
    std::fflush(stdout);
    std::_Exit(77);  // SKIP_RETURN_CODE in CMakeLists.txt
}();

}  // namespace
