// SPDX-License-Identifier: Apache-2.0
//
// The main program of every unit and stress test. It announces each test case before it runs, so
// that the log of one that hangs or crashes names it. doctest's own signal handlers stay out: the
// runtime has handlers of its own for the same signals, and those are under test.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#define DOCTEST_CONFIG_NO_POSIX_SIGNALS
#include <doctest/doctest.h>

#include <cstdio>

namespace {

struct Announcer : doctest::IReporter {
    explicit Announcer(const doctest::ContextOptions&) {}
    void test_case_start(const doctest::TestCaseData& test) override {
        std::fprintf(stderr, "case: %s\n", test.m_name);
    }
    void report_query(const doctest::QueryData&) override {}
    void test_run_start() override {}
    void test_run_end(const doctest::TestRunStats&) override {}
    void test_case_reenter(const doctest::TestCaseData&) override {}
    void test_case_end(const doctest::CurrentTestCaseStats&) override {}
    void test_case_exception(const doctest::TestCaseException&) override {}
    void subcase_start(const doctest::SubcaseSignature&) override {}
    void subcase_end() override {}
    void log_assert(const doctest::AssertData&) override {}
    void log_message(const doctest::MessageData&) override {}
    void test_case_skipped(const doctest::TestCaseData&) override {}
};

} // namespace

DOCTEST_REGISTER_LISTENER("announcer", 1, Announcer);
