// SPDX-License-Identifier: Apache-2.0
//
// curlfetch: libcurl's easy interface, whose calls block until all of an answer is there: many
// workers that fetch one URL several times each, on a connection each. Names are resolved by curl's
// own threads, one for each while it looks.
//
//   curlfetch URL [WORKERS [FETCHES]] [--threads]                     "http://localhost:8080/"
//
// Whom the server's certificate names is not asked: it is for tlsproxy, which signs its own.
// Of a goroutine's stack this uses 12 KiB, by https as well.
#include "workers.hpp"

#include <curl/curl.h>

namespace {

std::size_t collect(char* data, std::size_t, std::size_t n, void* to) {
    static_cast<std::string*>(to)->append(data, n);
    return n;
}

std::string fetch(const std::string& url, int times) {
    std::string got;
    CURL* curl = ::curl_easy_init();
    ::curl_easy_setopt(curl, CURLOPT_URL, url.c_str());
    ::curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, 0L);
    ::curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, 0L);
    ::curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, collect);
    ::curl_easy_setopt(curl, CURLOPT_WRITEDATA, &got);
    ::curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    for (int i = 0; i < times; i++)
        if (const CURLcode rc = ::curl_easy_perform(curl); rc != CURLE_OK)
            got += ::curl_easy_strerror(rc);
    ::curl_easy_cleanup(curl);
    return got;
}

} // namespace

int main(int argc, char** argv) try {
    bool threads = false;
    const std::vector<std::string> args = workers::arguments(argc, argv, &threads);
    if (args.empty()) {
        std::fprintf(stderr, "usage: curlfetch URL [WORKERS [FETCHES]] [--threads]\n");
        return 2;
    }
    ::curl_global_init(CURL_GLOBAL_ALL);
    const int count = args.size() > 1 ? std::stoi(args[1]) : 200;
    const int each = args.size() > 2 ? std::stoi(args[2]) : 5;
    workers::run({.workers = count, .threads = threads, .unit = "requests", .each = each},
                 [&](int) { return fetch(args[0], each); });
} catch (const std::exception& e) {
    std::fprintf(stderr, "curlfetch: %s\n", e.what());
    return 1;
}
