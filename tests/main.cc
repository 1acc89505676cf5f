// SPDX-License-Identifier: GPL-3.0-or-later
// Registers every suite of tests/suites.inc with Google Test and runs them.
#include <gtest/gtest.h>

#include "tests/harness_run.h"

extern "C" {
#define SUITE(name) extern const struct test_suite name;
#include "tests/suites.inc"
#undef SUITE
}

namespace
{
const struct test_suite *const suites[] = {
#define SUITE(name) &name,
#include "tests/suites.inc"
#undef SUITE
};

class CCase : public testing::Test {
    public:
	explicit CCase(const struct test_case &which) : c(which)
	{
	}
	void TestBody() override
	{
		run_case(c);
	}

    private:
	const struct test_case &c;
};
} // namespace

int main(int argc, char **argv)
{
	testing::InitGoogleTest(&argc, argv);
	for (const struct test_suite *s : suites)
		for (size_t i = 0; i < s->n; i++) {
			const struct test_case &c = s->cases[i];

			testing::RegisterTest(s->name, c.name, nullptr, nullptr, __FILE__, __LINE__,
					      [&c]() -> testing::Test * { return new CCase(c); });
		}
	return RUN_ALL_TESTS();
}
