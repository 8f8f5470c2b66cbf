// SPDX-License-Identifier: Apache-2.0
//
// file: random reads of 4 KiB from one file, past the page cache (O_DIRECT), 64 at a time: each of
// 64 goroutines or tasks reads, and reads again when it has what it asked for. With cached=1 the
// file is in the page cache, and nothing is waited for.
//
// iops         reads per second
// p50_us, p99_us
//              of one read
// threads      the most that the process had at any look, one each 20 ms
// cpu_us_each  user and system time over the reads
//
// The peers: Go's os.File.ReadAt; tokio with a pread in spawn_blocking for each read, which is what
// tokio::fs does; fio with its io_uring engine, one thread and a queue of 64, which knows neither
// goroutines nor tasks and is what the disk and the kernel give (it counts no threads but its own
// helpers).
//
// The series kind=http is baton's httpd under two wrks, of which one asks for "/" over 16
// connections, and the other, over 32, for "/" as well (p99_us_hello, rps_hello) or for files of 64
// KiB (p99_us, rps): what the first one's requests suffer from the files.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "baton/baton.hpp"
#include "support/bench.hpp"
#include "support/clock.hpp"
#include "support/http_load.hpp"
#include "support/samples.hpp"
#include "support/threads.hpp"

namespace {

constexpr std::size_t kBlock = 4096;
constexpr std::size_t kSamples = 200'000; // of each goroutine, the first ones
constexpr int kReaders = 64;

struct Reader {
    std::vector<std::uint32_t> ns = std::vector<std::uint32_t>(kSamples);
    std::size_t taken = 0;
    std::uint64_t reads = 0;

    void run(baton::File& file, std::uint64_t blocks, std::uint64_t seed,
             const std::atomic<bool>& stop) {
        const std::unique_ptr<void, void (*)(void*)> buf(std::aligned_alloc(kBlock, kBlock),
                                                         std::free);
        std::uint64_t x = 88172645463325252 * (2 * seed + 1);
        while (!stop.load(std::memory_order_relaxed)) { // relaxed: one read more does no harm
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            const std::int64_t begin = bench::now_ns();
            if (file.pread({static_cast<std::byte*>(buf.get()), kBlock},
                           static_cast<std::int64_t>(x % blocks * kBlock)) != kBlock)
                throw bench::Failure("a read came short");
            if (taken < kSamples) ns[taken++] = static_cast<std::uint32_t>(bench::now_ns() - begin);
            reads++;
        }
    }
};

void side(const bench::KeyValues& args) {
    baton::run([&] {
        const int flags = O_RDONLY | (args.number("cached") != 0 ? 0 : O_DIRECT);
        baton::File file = baton::File::open(args.text("file"), flags);
        const std::uint64_t blocks = file.stat().stx_size / kBlock;
        std::vector<Reader> readers(kReaders);
        std::atomic<bool> stop = false;
        baton::WaitGroup wg;
        const double cpu_us = bench::process_cpu_us();
        const std::int64_t begin = bench::now_ns(), end = begin + args.number("ms") * 1'000'000;
        for (std::size_t i = 0; i < readers.size(); i++)
            wg.go([&, i] { readers[i].run(file, blocks, i, stop); });
        int threads = 0;
        while (bench::now_ns() < end) {
            threads = std::max(threads, bench::thread_count());
            baton::sleep_for(std::chrono::milliseconds(20));
        }
        stop = true;
        wg.wait();
        const double seconds = static_cast<double>(bench::now_ns() - begin) / 1e9;
        std::vector<std::uint32_t> all;
        double reads = 0;
        for (const Reader& r : readers) {
            all.insert(all.end(), r.ns.begin(),
                       r.ns.begin() + static_cast<std::ptrdiff_t>(r.taken));
            reads += static_cast<double>(r.reads);
        }
        bench::print_figure("iops", reads / seconds);
        bench::print_figure("p50_us", bench::percentile(std::span(all), 0.5) / 1e3);
        bench::print_figure("p99_us", bench::percentile(std::span(all), 0.99) / 1e3);
        bench::print_figure("threads", threads);
        bench::print_figure("cpu_us_each", (bench::process_cpu_us() - cpu_us) / reads);
    });
}

/// The file, which has no name and goes with us: what the measured processes call it.
std::string make_file(std::size_t megabytes) {
    const int fd = ::open("/var/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0) throw bench::Failure("no file without a name in /var/tmp");
    std::vector<std::uint64_t> chunk((1 << 20) / sizeof(std::uint64_t));
    std::uint64_t x = 88172645463325252;
    for (std::size_t i = 0; i < megabytes; i++) {
        for (std::uint64_t& word : chunk) word = x = x * 6364136223846793005 + 1;
        if (::write(fd, chunk.data(), 1 << 20) != 1 << 20)
            throw bench::Failure("no room in /var/tmp");
    }
    ::fsync(fd);
    return "/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(fd);
}

bench::Figures measure_http(const bench::Command& command, int seconds) {
    const bench::Server server(command);
    const auto beside = [&](const char* path) {
        bench::Wrk others(server.url() + path, 32, seconds);
        const bench::WrkReport hello = bench::Wrk(server.url() + "/", 16, seconds).report();
        return std::pair(hello, others.report());
    };
    const auto [calm, calm_others] = beside("/");
    const auto [busy, files] = beside("/file");
    return {{"p99_us_hello", calm.p99_us},
            {"p99_us", busy.p99_us},
            {"rps_hello", calm.requests_per_s},
            {"rps", busy.requests_per_s},
            {"files_per_s", files.requests_per_s}};
}

void plan(bench::Plan& plan) {
    const bool quick = plan.options().quick;
    static const std::string path = make_file(quick ? 256 : 2048);
    for (const char* cached : {"0", "1"})
        for (const char* impl : {"baton", "go", "tokio", "fio"})
            plan.add(impl, {{"kind", "read"}, {"cached", cached}},
                     {"file=" + path, quick ? "ms=500" : "ms=3000"});
    bench::require_wrk();
    bench::Command command = bench::server_command(plan, "baton");
    command.argv.insert(command.argv.end(), {"--file", path});
    plan.add_own("baton", {{"kind", "http"}}, [=] { return measure_http(command, quick ? 1 : 3); });
}

} // namespace

int main(int argc, char** argv) {
    return bench::run({.name = "file", .rounds = 3, .quick_rounds = 1, .plan = plan, .side = side},
                      argc, argv);
}
