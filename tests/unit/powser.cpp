// SPDX-License-Identifier: Apache-2.0
//
// Power series as streams of rationals between goroutines: the reference's powser1.go, the heaviest
// use of channels in its tests. A series is computed term by term on demand; each has a channel of
// requests and one of terms, and hundreds of goroutines stay blocked at the end.
// run: tiers
#include <array>
#include <cstdint>
#include <functional>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include "baton/baton.hpp"
#include "support/procs.hpp"

namespace {

using baton::Chan;
using baton::on_recv;
using baton::on_send;

struct Rational {
    std::int64_t num = 0;
    std::int64_t den = 1;

    Rational() = default;
    Rational(std::int64_t n, std::int64_t d = 1) {
        const std::int64_t g = std::gcd(n, d) * (d < 0 ? -1 : 1);
        num = n / g;
        den = d / g;
    }
    friend Rational operator+(Rational a, Rational b) {
        const std::int64_t g = std::gcd(a.den, b.den);
        return {a.num * (b.den / g) + b.num * (a.den / g), a.den / g * b.den};
    }
    friend Rational operator*(Rational a, Rational b) {
        const std::int64_t g1 = std::gcd(a.num, b.den);
        const std::int64_t g2 = std::gcd(b.num, a.den);
        return {(a.num / g1) * (b.num / g2), (a.den / g2) * (b.den / g1)};
    }
};

struct Empty {};

/// Nothing in a term's place: the series is finite and at its end.
using Term = std::optional<Rational>;

/// One term comes for each request.
struct Series {
    Chan<Empty> request;
    Chan<Term> terms;

    Term get() const {
        request.send({});
        return *terms.recv();
    }
    void put(Term term) const {
        (void)request.recv();
        terms.send(term);
    }
};

/// A goroutine that gives the terms which `next` makes, for as long as anybody asks.
Series make(std::function<void(const Series&)> fill) {
    Series out;
    baton::go([out, fill = std::move(fill)] { fill(out); });
    return out;
}

Series repeat(Rational c) {
    return make([c](const Series& out) {
        for (;;) out.put(c);
    });
}

Series polynomial(std::vector<Rational> a) {
    return make([a](const Series& out) {
        for (const Rational& term : a) out.put(term);
        for (;;) out.put(std::nullopt);
    });
}

/// Gives one term to both, and has the next one given by a goroutine of its own: who asks first is
/// ahead, and may go on while the other still wants this term.
void split_term(const Series& in, std::array<Series, 2> out, const Chan<Empty>& wait) {
    bool both = false;
    baton::select(on_recv(out[0].request), on_recv(wait, [&](std::optional<Empty>) {
                      both = true;
                      if (baton::select(on_recv(out[0].request), on_recv(out[1].request)) == 1)
                          std::swap(out[0], out[1]);
                  }));
    in.request.send({});
    const Chan<Empty> release;
    baton::go([in, out, release] { split_term(in, out, release); });
    const Term term = *in.terms.recv();
    out[0].terms.send(term);
    if (!both) (void)wait.recv();
    (void)out[1].request.recv();
    out[1].terms.send(term);
    release.send({});
}

/// The same series twice.
std::pair<Series, Series> split(const Series& in) {
    std::array<Series, 2> out;
    const Chan<Empty> release;
    baton::go([in, out, release] { split_term(in, out, release); });
    release.send({});
    return {out[0], out[1]};
}

/// Terms of both, asked for together: two sends and two receives, each done once, in any order.
std::pair<Term, Term> get2(const Series& a, const Series& b) {
    std::array<Chan<Empty>, 2> request{a.request, b.request};
    std::array<Chan<Term>, 2> terms;
    const auto nil = [](auto& c) { [[maybe_unused]] const auto gone = std::move(c); };
    nil(terms[0]);
    nil(terms[1]);
    std::pair<Term, Term> got;
    for (int n = 0; n < 4; n++) {
        baton::select(on_send(request[0], Empty{},
                              [&] {
                                  nil(request[0]);
                                  terms[0] = a.terms;
                              }),
                      on_send(request[1], Empty{},
                              [&] {
                                  nil(request[1]);
                                  terms[1] = b.terms;
                              }),
                      on_recv(terms[0],
                              [&](std::optional<Term> t) {
                                  got.first = *t;
                                  nil(terms[0]);
                              }),
                      on_recv(terms[1], [&](std::optional<Term> t) {
                          got.second = *t;
                          nil(terms[1]);
                      }));
    }
    return got;
}

/// Passes on what is left of a series.
void copy(const Series& from, const Series& out) {
    for (;;) {
        (void)out.request.recv();
        out.terms.send(from.get());
    }
}

Series add(const Series& a, const Series& b) {
    return make([a, b](const Series& out) {
        for (;;) {
            (void)out.request.recv();
            const auto [x, y] = get2(a, b);
            if (!x && !y) {
                out.terms.send(std::nullopt);
            } else {
                out.terms.send(x.value_or(Rational()) + y.value_or(Rational()));
            }
        }
    });
}

Series scale(Rational c, const Series& a) {
    return make([c, a](const Series& out) {
        for (;;) {
            (void)out.request.recv();
            const Term t = a.get();
            out.terms.send(t ? Term(c * *t) : std::nullopt);
        }
    });
}

/// x^n times a.
Series shift(Rational first, const Series& a) {
    return make([first, a](const Series& out) {
        out.put(first);
        copy(a, out);
    });
}

/// (a0 + x A)(b0 + x B) = a0 b0 + x (a0 B + b0 A + x A B), by itself.
Series multiply(const Series& a, const Series& b) {
    return make([a, b](const Series& out) {
        (void)out.request.recv();
        const auto [x, y] = get2(a, b);
        if (!x || !y) {
            for (;; out.request.recv()) out.terms.send(std::nullopt);
        }
        out.terms.send(*x * *y);
        const auto [a1, a2] = split(a);
        const auto [b1, b2] = split(b);
        const Series sum = add(scale(*x, b1), scale(*y, a1));
        const Series rest = add(sum, shift(Rational(), multiply(a2, b2)));
        copy(rest, out);
    });
}

Series differentiate(const Series& a) {
    return make([a](const Series& out) {
        (void)out.request.recv();
        (void)a.get();
        for (std::int64_t i = 1;; i++, out.request.recv()) {
            const Term t = a.get();
            out.terms.send(t ? Term(Rational(i) * *t) : std::nullopt);
        }
    });
}

Series integrate(Rational c, const Series& a) {
    return make([c, a](const Series& out) {
        out.put(c);
        for (std::int64_t i = 1;; i++) {
            (void)out.request.recv();
            const Term t = a.get();
            out.terms.send(t ? Term(Rational(1, i) * *t) : std::nullopt);
        }
    });
}

/// exp(a) for a with a0 = 0: y' = y a', so y = 1 + the integral of y a'.
Series exponential(const Series& a) {
    // y is made of itself: its terms go back in through a series that a goroutine feeds.
    Series y;
    Series again;
    const Series rest = integrate(Rational(1), multiply(again, differentiate(a)));
    baton::go([rest, y, again] {
        const auto [one, two] = split(rest);
        baton::go([one = one, y] { copy(one, y); });
        copy(two, again);
    });
    return y;
}

/// a(c x^2), whose odd terms are zero.
Series in_square(Rational c, const Series& a) {
    return make([c, a](const Series& out) {
        Rational power = 1;
        for (;;) {
            (void)out.request.recv();
            const Term t = a.get();
            out.terms.send(t ? Term(power * *t) : std::nullopt);
            out.put(Rational());
            power = power * c;
        }
    });
}

void check(const Series& s, const std::vector<Rational>& expected) {
    for (const Rational& term : expected) {
        const Term got = s.get();
        REQUIRE(got);
        CHECK(got->num == term.num);
        CHECK(got->den == term.den);
    }
}

} // namespace

TEST_CASE("power series of rationals, a goroutine for each operation on them") {
    procs_test::over_procs([](int) {
        const auto ones = [] { return repeat(1); };
        check(ones(), {1, 1, 1, 1, 1, 1, 1, 1, 1, 1});
        check(add(ones(), repeat(-3)), {-2, -2, -2, -2, -2, -2, -2, -2, -2, -2});
        check(scale(-2, ones()), {-2, -2, -2, -2, -2, -2, -2, -2, -2, -2});
        check(differentiate(ones()), {1, 2, 3, 4, 5, 6, 7, 8, 9, 10});
        check(integrate(0, ones()),
              {0, 1, {1, 2}, {1, 3}, {1, 4}, {1, 5}, {1, 6}, {1, 7}, {1, 8}, {1, 9}});
        check(multiply(ones(), ones()), {1, 2, 3, 4, 5, 6, 7, 8, 9, 10});
        check(exponential(integrate(0, ones())), {1, 1, 1, 1, 1, 1, 1, 1, 1, 1}); // 1 / (1 - x)
        check(exponential(add(integrate(0, ones()), polynomial({0}))), {1, 1, 1, 1, 1});
        check(exponential(polynomial({0, 1})),
              {1, 1, {1, 2}, {1, 6}, {1, 24}, {1, 120}, {1, 720}, {1, 5040}});
        // exp(x + x^2 + ...), the reference's longest.
        check(exponential(shift(0, ones())), {1,
                                              1,
                                              {3, 2},
                                              {13, 6},
                                              {73, 24},
                                              {167, 40},
                                              {4051, 720},
                                              {37633, 5040},
                                              {43817, 4480},
                                              {4596553, 362880}});
        check(integrate(0, in_square(-1, ones())),
              {0, 1, 0, {-1, 3}, 0, {1, 5}, 0, {-1, 7}, 0, {1, 9}, 0, {-1, 11}});
    });
}
