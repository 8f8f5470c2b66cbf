// SPDX-License-Identifier: Apache-2.0
//
// The arguments of a measured process: `key=value ...`. Header only, because the C++ peers read
// theirs with it and link nothing of the harness.
#pragma once

#include <map>
#include <span>
#include <stdexcept>
#include <string>

namespace bench {

/// What went wrong, in words for a person: it becomes the one line before exit 1.
struct Failure : std::runtime_error {
    using std::runtime_error::runtime_error;
};

class KeyValues {
public:
    explicit KeyValues(std::span<char*> args) {
        for (const std::string arg : args) {
            const auto equals = arg.find('=');
            if (equals == std::string::npos || equals == 0)
                throw Failure("expected key=value, got '" + arg + "'");
            values_[arg.substr(0, equals)] = arg.substr(equals + 1);
        }
    }

    [[nodiscard]] std::string text(const std::string& key) const {
        const auto found = values_.find(key);
        if (found == values_.end()) throw Failure("missing " + key + "=");
        return found->second;
    }
    [[nodiscard]] std::string text(const std::string& key, const std::string& otherwise) const {
        return values_.contains(key) ? text(key) : otherwise;
    }
    [[nodiscard]] long number(const std::string& key) const {
        const std::string value = text(key);
        try {
            std::size_t used = 0;
            const long n = std::stol(value, &used);
            if (used == value.size()) return n;
        } catch (const std::exception&) {
            // Falls through to the one message for every kind of wrong number.
        }
        throw Failure(key + "=" + value + " is no number");
    }
    [[nodiscard]] long number(const std::string& key, long otherwise) const {
        return values_.contains(key) ? number(key) : otherwise;
    }

private:
    std::map<std::string, std::string> values_;
};

} // namespace bench
