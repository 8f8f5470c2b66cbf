// SPDX-License-Identifier: Apache-2.0
//
// The global queue's list, against a deque.
#include <doctest/doctest.h>

#include <algorithm>
#include <deque>
#include <random>
#include <vector>

#include "runtime/sched.hpp"

using namespace baton::rt;

TEST_CASE("GChains: what goes in at either end, or many at once, comes out in order") {
    constexpr std::size_t kGs = 500;
    std::vector<G> gs(kGs);
    GChains chains;
    std::deque<G*> expected;
    std::vector<G*> out;
    for (std::size_t i = 0; i < kGs; i++) out.push_back(&gs[i]);
    const auto fetch = [&] {
        G* gp = out.back();
        out.pop_back();
        return gp;
    };
    std::minstd_rand chance(7);
    for (int step = 0; step < 200'000; step++) {
        const std::size_t many = std::min<std::size_t>(chance() % 100, out.size());
        switch (chance() % 7) {
        case 0:
            if (out.empty()) break;
            expected.push_back(out.back());
            chains.push_back(fetch());
            break;
        case 1:
            if (out.empty()) break;
            expected.push_front(out.back());
            chains.push_front(fetch());
            break;
        case 2: {
            GChains more;
            for (std::size_t i = 0; i < many; i++) {
                expected.push_back(out.back());
                more.push_back(fetch());
            }
            chains.append(more);
            REQUIRE(more.empty());
            break;
        }
        case 3: {
            GChains more;
            for (std::size_t i = 0; i < many; i++) {
                expected.push_front(out.back());
                more.push_front(fetch());
            }
            chains.prepend(more);
            REQUIRE(more.size() == 0);
            break;
        }
        case 4: {
            G* gp = chains.pop();
            REQUIRE(gp == (expected.empty() ? nullptr : expected.front()));
            if (!gp) break;
            expected.pop_front();
            out.push_back(gp);
            break;
        }
        default: {
            const std::uint32_t max = chance() % 40;
            GQueue q = chains.pop_chain(max);
            REQUIRE(q.n <= max);
            REQUIRE(q.empty() == (max == 0 || expected.empty()));
            std::uint32_t n = 0;
            while (G* gp = q.pop()) {
                REQUIRE(gp == expected.front());
                expected.pop_front();
                out.push_back(gp);
                n++;
            }
            REQUIRE(q.n == 0);
        }
        }
        REQUIRE(chains.size() == expected.size());
        REQUIRE(chains.empty() == expected.empty());
    }
}
