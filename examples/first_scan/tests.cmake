add_test(NAME examples/first_scan COMMAND first_scan)
set_tests_properties(examples/first_scan PROPERTIES PASS_REGULAR_EXPRESSION "0.5000 0.3033 0.1839 0.1116 0.0677")
