# What only shows when the library is built into programs: headers alone and together, consumers, mixed instruction sets.

# ---- Each header compiles alone, and two translation units with all of them link -------------------------------------

file(GLOB_RECURSE headers CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/include/ssmkit/*.hpp)
set(includes -I${PROJECT_SOURCE_DIR}/include)
set(packages ${xsimd_HEADERS} ${Eigen3_HEADERS})
list(REMOVE_ITEM packages ${CMAKE_CXX_IMPLICIT_INCLUDE_DIRECTORIES})
foreach(directory IN LISTS packages)
    list(APPEND includes -isystem ${directory})
endforeach()
set(all)
set(stamps)
foreach(header IN LISTS headers)
    string(MAKE_C_IDENTIFIER ${header} name)
    set(source ${CMAKE_CURRENT_BINARY_DIR}/one_header_each/${name}.cpp)
    set(stamp ${CMAKE_CURRENT_BINARY_DIR}/one_header_each/${name}.stamp)
    file(CONFIGURE OUTPUT ${source} CONTENT "#include <${header}>\n#include <${header}>\n")
    # Only the syntax: to generate code for the functions that are no templates would take four times as long.
    add_custom_command(OUTPUT ${stamp} DEPENDS ${source} ${PROJECT_SOURCE_DIR}/include/${header} DEPFILE ${stamp}.d
        COMMAND ${CMAKE_CXX_COMPILER} -std=c++20 -Wall -Wextra -Werror ${includes} -fsyntax-only -MD -MT ${stamp} -MF ${stamp}.d ${source}
        COMMAND ${CMAKE_COMMAND} -E touch ${stamp} VERBATIM)
    list(APPEND stamps ${stamp})
    string(APPEND all "#include <${header}>\n")
endforeach()
add_custom_target(one_header_each ALL DEPENDS ${stamps})
set(first ${CMAKE_CURRENT_BINARY_DIR}/all_headers/first.cpp)
set(second ${CMAKE_CURRENT_BINARY_DIR}/all_headers/second.cpp)
file(CONFIGURE OUTPUT ${first} CONTENT "${all}void second();\nint main() { second(); }\n")
file(CONFIGURE OUTPUT ${second} CONTENT "${all}void second();\nvoid second() {}\n")
add_executable(headers ${first} ${second})
target_link_libraries(headers PRIVATE ssmkit_development)
target_compile_options(headers PRIVATE -O0)
add_test(NAME headers COMMAND headers)

if(CMAKE_CROSSCOMPILING OR NOT CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
    return()
endif()

# ---- Translation units for three instruction sets in one program, in both orders, at two levels of optimisation ------

set(mixed mixed_instruction_sets)
foreach(level IN ITEMS O0 O2)
    set(parts)
    foreach(instruction_set IN ITEMS x86-64 x86-64-v3 x86-64-v4)
        set(part ${mixed}_${level}_${instruction_set})
        string(MAKE_C_IDENTIFIER part_${instruction_set} function)
        add_library(${part} OBJECT ${mixed}/part.cpp)
        target_link_libraries(${part} PRIVATE ssmkit_development)
        target_compile_definitions(${part} PRIVATE PART=${function})
        target_compile_options(${part} PRIVATE -${level} -march=${instruction_set})
        list(APPEND parts $<TARGET_OBJECTS:${part}>)
    endforeach()
    foreach(order IN ITEMS rising falling)
        add_executable(${mixed}_${level}_${order} ${mixed}/main.cpp ${parts})
        target_link_libraries(${mixed}_${level}_${order} PRIVATE ssmkit_development)
        add_test(NAME ${mixed}/${level}_${order} COMMAND ${mixed}_${level}_${order})
        list(REVERSE parts)
    endforeach()
endforeach()

# ---- Other people's projects -----------------------------------------------------------------------------------------

set(prefix ${CMAKE_CURRENT_BINARY_DIR}/consumer/prefix)
add_test(NAME consumer/install COMMAND ${CMAKE_COMMAND} --install ${PROJECT_BINARY_DIR} --prefix ${prefix})
set_tests_properties(consumer/install PROPERTIES FIXTURES_SETUP installed)
foreach(way IN ITEMS find_package add_subdirectory FetchContent)
    add_test(NAME consumer/${way}
        COMMAND ${CMAKE_CTEST_COMMAND} --build-and-test
            ${CMAKE_CURRENT_SOURCE_DIR}/consumer ${CMAKE_CURRENT_BINARY_DIR}/consumer/${way}
            --build-generator ${CMAKE_GENERATOR} --build-options
            -DWAY=${way} -DCMAKE_PREFIX_PATH=${prefix} -DSSMKIT_SOURCE=${PROJECT_SOURCE_DIR}
            -DFETCHCONTENT_SOURCE_DIR_SSMKIT=${PROJECT_SOURCE_DIR} -Dxsimd_HEADERS=${xsimd_HEADERS}
            -DCMAKE_CXX_COMPILER=${CMAKE_CXX_COMPILER} -DCMAKE_BUILD_TYPE=Debug
            --test-command ${CMAKE_CTEST_COMMAND} --output-on-failure --no-tests=error)
endforeach()
set_tests_properties(consumer/find_package PROPERTIES FIXTURES_REQUIRED installed)
