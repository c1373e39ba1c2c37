//! What must not compile, and what the compiler says about it.

#[test]
fn mistakes_in_composition_do_not_compile_and_say_why() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/compile_fail/*.rs");
}
