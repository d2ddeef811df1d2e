if(SSMKIT_BUILD_TESTS)
    set(sounds ${CMAKE_CURRENT_BINARY_DIR}/s4d_filter)
    add_test(NAME examples/s4d_filter/example COMMAND s4d_filter --example ${sounds}_dry.wav)
    set_tests_properties(examples/s4d_filter/example PROPERTIES FIXTURES_SETUP dry_sound)
    add_test(NAME examples/s4d_filter/run COMMAND s4d_filter ${sounds}_dry.wav ${sounds}_wet.wav --picture ${sounds}.png)
    set_tests_properties(examples/s4d_filter/run PROPERTIES FIXTURES_REQUIRED dry_sound FIXTURES_SETUP wet_sound
        PASS_REGULAR_EXPRESSION "allocations while it ran: 0")
    # Blocks of another size make the same sound, bit for bit.
    add_test(NAME examples/s4d_filter/run_in_other_blocks
        COMMAND s4d_filter ${sounds}_dry.wav ${sounds}_wet_1000.wav --block 1000)
    set_tests_properties(examples/s4d_filter/run_in_other_blocks PROPERTIES FIXTURES_REQUIRED dry_sound FIXTURES_SETUP wet_sound)
    add_test(NAME examples/s4d_filter/blocks_do_not_matter
        COMMAND ${CMAKE_COMMAND} -E compare_files ${sounds}_wet.wav ${sounds}_wet_1000.wav)
    set_tests_properties(examples/s4d_filter/blocks_do_not_matter PROPERTIES FIXTURES_REQUIRED wet_sound)
    foreach(case IN ITEMS absent no_sound)
        add_test(NAME examples/s4d_filter/${case} COMMAND s4d_filter ${sounds}_${case}.wav ${sounds}_out.wav)
        set_tests_properties(examples/s4d_filter/${case} PROPERTIES PASS_REGULAR_EXPRESSION "s4d_filter_${case}.wav: ")
    endforeach()
    file(WRITE ${sounds}_no_sound.wav "RIFF, but no more than that")
endif()
