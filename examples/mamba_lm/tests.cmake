# The checkpoints that embedded.cpp copies into the program.
file(GLOB embedded CONFIGURE_DEPENDS ${folder}/models/*/*)
set_source_files_properties(${folder}/embedded.cpp PROPERTIES OBJECT_DEPENDS "${embedded}")

if(SSMKIT_BUILD_TESTS)
    add_executable(mamba_lm_tests ${folder}/tests/command.cpp)
    target_link_libraries(mamba_lm_tests PRIVATE ssmkit_development ssmkit_catch)
    target_compile_definitions(mamba_lm_tests PRIVATE SSMKIT_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
    add_dependencies(mamba_lm_tests mamba_lm)
    add_test(NAME examples/mamba_lm COMMAND mamba_lm_tests)
    list(JOIN CMAKE_CROSSCOMPILING_EMULATOR " " emulator)
    set_tests_properties(examples/mamba_lm PROPERTIES
        ENVIRONMENT "MAMBA_LM=$<TARGET_FILE:mamba_lm>;MAMBA_LM_EMULATOR=${emulator}")
endif()
