// SPDX-License-Identifier: Apache-2.0
//
// The README's program: three goroutines, and one that waits for them.
#include <baton/baton.hpp>

#include <chrono>
#include <cstdio>

int main() {
    baton::run([] {
        using namespace std::chrono_literals;
        baton::WaitGroup wg;
        for (int i = 3; i > 0; i--) {
            wg.go([i] {
                baton::sleep_for(i * 10ms);
                std::printf("goroutine %d\n", i);
            });
        }
        wg.wait();
        std::puts("all done");
    });
}
