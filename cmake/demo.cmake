# cmake -P cmake/demo.cmake [arguments of mamba_lm]
#
# Installs or fetches what is missing, builds the example mamba_lm for this machine's processor and runs it: a Mamba language
# model over bytes continues a prompt. Without arguments it takes a prompt of its own.

include(${CMAKE_CURRENT_LIST_DIR}/setup.cmake)
cmake_path(GET CMAKE_CURRENT_LIST_DIR PARENT_PATH source)
set(build ${source}/build-demo)

ssmkit_install(${SSMKIT_BUILD_NEEDS})
ssmkit_configure(${build} -DCMAKE_BUILD_TYPE=Release -DSSMKIT_BUILD_TESTS=OFF -DSSMKIT_BUILD_BENCH=OFF)
message("Building mamba_lm")
ssmkit_run(${CMAKE_COMMAND} --build ${build} --target mamba_lm --parallel ${SSMKIT_CORES} -- --quiet)

set(arguments)
math(EXPR last "${CMAKE_ARGC} - 1")
foreach(i RANGE 3 ${last})
    if(i LESS CMAKE_ARGC)
        list(APPEND arguments "${CMAKE_ARGV${i}}")
    endif()
endforeach()
if(NOT arguments)
    set(arguments --echo "And it came to pass")
endif()
ssmkit_run(${build}/examples/mamba_lm ${arguments})
