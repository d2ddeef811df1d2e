# cmake -P cmake/test.cmake
#
# Installs or fetches what is missing, builds the tests and the examples for each instruction set and runs all tests that this
# machine's processor can run. cmake -DSSMKIT_CUDA=ON -P cmake/test.cmake: the device's as well, for which nvcc must be there.

include(${CMAKE_CURRENT_LIST_DIR}/setup.cmake)
cmake_path(GET CMAKE_CURRENT_LIST_DIR PARENT_PATH source)
set(build ${source}/build-test)

ssmkit_install(${SSMKIT_BUILD_NEEDS} ${SSMKIT_TEST_NEEDS})
# -O1: the tests instantiate every kernel for every type, and twice the speed would cost twice the time to compile.
set(cuda)
if(SSMKIT_CUDA)
    set(cuda -DSSMKIT_CUDA=ON "-DCMAKE_CUDA_FLAGS_RELEASE=-O1 -Xcicc -O1 -Xptxas -O1")
endif()
ssmkit_configure(${build} -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_FLAGS_RELEASE=-O1 -DSSMKIT_BUILD_BENCH=OFF ${cuda})
message("Building the tests")
ssmkit_run(${CMAKE_COMMAND} --build ${build} --parallel ${SSMKIT_CORES})
ssmkit_run(${CMAKE_CTEST_COMMAND} --test-dir ${build} --output-on-failure --parallel ${SSMKIT_CORES})
