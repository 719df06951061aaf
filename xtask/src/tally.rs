//! Counting test results in what test runners print.

use std::fmt;

/// How many tests passed and failed, and how many were not run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
}

impl Tally {
    /// Adds what a line of `cargo test` says: `test result: ok. 3 passed; 0 failed; 1 ignored; …`.
    pub(crate) fn add_cargo(&mut self, line: &str) {
        if let Some(counts) = line.trim_start().strip_prefix("test result: ") {
            self.add(counts);
        }
    }

    /// Adds what the last line of pytest says: `=== 1 failed, 3 passed, 1 skipped in 2.50s ===`.
    pub(crate) fn add_pytest(&mut self, line: &str) {
        let counts = line.trim_matches(['=', ' ']);
        if counts.rsplit_once(" in ").is_some_and(|(_, time)| time.starts_with(|c: char| c.is_ascii_digit()))
        {
            self.add(counts);
        }
    }

    fn add(&mut self, counts: &str) {
        let mut words = counts.split([' ', ',', ';']).filter(|word| !word.is_empty()).peekable();
        while let Some(word) = words.next() {
            let (Ok(count), Some(what)) = (word.parse::<u64>(), words.peek()) else { continue };
            match *what {
                "passed" => self.passed += count,
                "failed" | "error" | "errors" => self.failed += count,
                "ignored" | "skipped" => self.ignored += count,
                _ => {}
            }
        }
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, failed, ignored } = self;
        if *ignored > 0 {
            write!(f, "{ignored} ignored, ")?;
        }
        write!(f, "{passed} passed, {failed} failed")
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn counts_every_result_line_of_cargo_test() {
        let mut tally = Tally::default();
        tally.add_cargo(
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.10s",
        );
        tally.add_cargo(
            "test result: FAILED. 2 passed; 4 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s",
        );
        tally.add_cargo("a test that prints 5 passed; 5 failed");
        assert_eq!(tally, Tally { passed: 5, failed: 4, ignored: 1 });
    }

    #[test]
    fn counts_the_last_line_of_pytest() {
        let mut tally = Tally::default();
        tally.add_pytest("FAILED test_edit.py::test_seed - assert 3 == 4");
        tally.add_pytest("==== 1 failed, 3 passed, 2 skipped, 1 warning, 1 error in 65.20s (0:01:05) ====");
        assert_eq!(tally, Tally { passed: 3, failed: 2, ignored: 2 });
    }

    #[test]
    fn ends_with_passed_and_failed() {
        let tally = Tally { passed: 3, failed: 1, ignored: 2 };
        assert_eq!(tally.to_string(), "2 ignored, 3 passed, 1 failed");
    }
}
