# The instruction sets that tests are built for, and which of them run here.

include_guard()
include(CheckCXXSourceRuns)

if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
    set(default_instruction_sets x86-64 x86-64-v3 x86-64-v4)
else()
    set(default_instruction_sets default)  # what the compiler takes without being told: NEON on aarch64
endif()
set(SSMKIT_INSTRUCTION_SETS ${default_instruction_sets} CACHE STRING "Values of -march that the tests are built for")

# Sets <variable> to whether a program for the instruction set runs on this machine (or its emulator).
function(ssmkit_runs_here instruction_set variable)
    set(needs_x86-64-v3 avx2 fma bmi2)
    set(needs_x86-64-v4 avx512f avx512bw avx512cd avx512dq avx512vl)
    set(condition true)
    foreach(feature IN LISTS needs_${instruction_set})
        string(APPEND condition " && __builtin_cpu_supports(\"${feature}\")")
    endforeach()
    string(MAKE_C_IDENTIFIER "SSMKIT_RUNS_${instruction_set}" result)
    check_cxx_source_runs("int main() { return ${condition} ? 0 : 1; }" ${result})
    set(${variable} ${${result}} PARENT_SCOPE)
endfunction()

# Compiles a target for an instruction set.
function(ssmkit_compile_for target instruction_set)
    if(NOT instruction_set STREQUAL "default")
        target_compile_options(${target} PRIVATE -march=${instruction_set})
    endif()
endfunction()
