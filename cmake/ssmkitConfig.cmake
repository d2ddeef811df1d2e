include(CMakeFindDependencyMacro)
find_dependency(Threads)

# The directory alone: xsimd's own target may link packages that are not there.
find_package(xsimd QUIET)
if(TARGET xsimd)
    get_target_property(ssmkit_xsimd_hints xsimd INTERFACE_INCLUDE_DIRECTORIES)
endif()
find_path(xsimd_HEADERS xsimd/xsimd.hpp HINTS ${ssmkit_xsimd_hints} DOC "Directory from which xsimd/xsimd.hpp is included")
unset(ssmkit_xsimd_hints)
if(NOT xsimd_HEADERS)
    set(ssmkit_FOUND FALSE)
    set(ssmkit_NOT_FOUND_MESSAGE "ssmkit needs xsimd 8.1 or newer: xsimd/xsimd.hpp was not found")
    return()
endif()

include(${CMAKE_CURRENT_LIST_DIR}/ssmkitTargets.cmake)
target_include_directories(ssmkit::ssmkit SYSTEM INTERFACE ${xsimd_HEADERS})
