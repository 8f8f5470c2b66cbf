// SPDX-License-Identifier: Apache-2.0
//
// Context: a chain of nodes, each with a handle to the one it was derived from. Those that can be
// cancelled are in a list of the next such one up the chain, and leave it when they go, so that a
// child which ends first leaves nothing behind.
//
// Ordering: who ends a context first writes why, under its lock, and then tells: err() and cause()
// read it once `told` is set, and whoever learns of the end by token or channel comes after. The
// channel is last: who learns by it finds the token stopped, and all below over.
//
// Nothing here calls itself for the next one up or down: contexts may be nested more deeply than a
// goroutine's stack would bear.
//
// Rejected: a std::stop_callback of the token above. Its destructor waits for a callback that runs
// unless that is on the calling thread, where it must be the caller's own; here another goroutine
// may have come to that thread.
#include "baton/context.hpp"

#include <algorithm>
#include <atomic>
#include <memory>

#include "kernel/clock.hpp"
#include "runtime/entry.hpp"
#include "runtime/lock.hpp"

namespace baton {

namespace detail {

/// When and why contexts are over: one that can be cancelled, and those with values derived from
/// it.
struct ContextEnd : std::enable_shared_from_this<ContextEnd> {
    ContextEnd() = default;
    ContextEnd(const ContextEnd&) = delete;
    ContextEnd& operator=(const ContextEnd&) = delete;
    ~ContextEnd() {
        if (above) above->leave(*this);
    }

    /// The first to come says why.
    void end(std::error_code why, const std::exception_ptr& what) noexcept {
        if (told_of() || !tell(why, what ? what : make_cause(why))) return;
        source.request_stop();
        ContextEnd* at = this;
        while (true) {
            if (auto child = at->next_child()) {
                if (!child->tell(err, cause)) continue; // who did sees to those below it
                at = child.get();
                at->held = std::move(child);
                at->source.request_stop();
                continue;
            }
            std::error_code closed_once; // so there is none
            at->done.close(closed_once);
            if (at->timer) at->timer->stop();
            if (at == this) return;
            const auto all_below_are_over = std::move(at->held);
            at = at->above.get();
        }
    }
    bool tell(std::error_code why, const std::exception_ptr& what) noexcept {
        const rt::Entry entry;
        const rt::LockGuard guard(lock);
        if (told_of()) return false;
        err = why;
        cause = what;
        told.store(true, std::memory_order_release); // release: pairs with the acquire in told_of
        return true;
    }
    static std::exception_ptr make_cause(std::error_code why) {
        return std::make_exception_ptr(std::system_error(why, "baton::Context"));
    }
    [[nodiscard]] bool told_of() const noexcept {
        return told.load(std::memory_order_acquire); // acquire: pairs with the release in tell
    }

    /// False: this is over, and the child is not in its list.
    [[nodiscard]] bool join(ContextEnd& child) {
        const rt::Entry entry;
        const rt::LockGuard guard(lock);
        if (told_of()) return false; // else whoever tells of it will find the child
        child.next = children;
        child.link = &children;
        if (children) children->link = &child.next;
        children = &child;
        return true;
    }
    void leave(ContextEnd& child) {
        const rt::Entry entry;
        const rt::LockGuard guard(lock);
        take_off(child);
    }
    /// The next that is to end with this; those that are being destroyed are left out.
    std::shared_ptr<ContextEnd> next_child() {
        const rt::Entry entry;
        const rt::LockGuard guard(lock);
        while (ContextEnd* child = children) {
            take_off(*child);
            if (auto there = child->weak_from_this().lock()) return there;
        }
        return nullptr;
    }
    static void take_off(ContextEnd& child) {
        if (!child.link) return;
        *child.link = child.next;
        if (child.next) child.next->link = child.link;
        child.link = nullptr;
    }

    std::atomic<bool> told{false};
    std::error_code err;
    std::exception_ptr cause;
    std::int64_t when_ns = Until::kNever;
    Chan<std::monostate> done;
    std::stop_source source;
    std::optional<Timer> timer; // there, if there will be one, before others see this
    std::shared_ptr<ContextEnd> above;
    std::shared_ptr<ContextEnd> held; // itself, while those below it end for what is above
    rt::Lock lock{rt::Rank::kLeaf};
    ContextEnd* children = nullptr; // under lock; of these `next` and `link` too
    ContextEnd* next = nullptr;
    ContextEnd** link = nullptr; // what points to it; null: it is in no list
};

struct ContextNode {
    ContextNode() = default;
    ContextNode(const ContextNode&) = delete;
    ContextNode& operator=(const ContextNode&) = delete;
    /// With it go those above that nobody else has, each before its parent.
    ~ContextNode() {
        end.reset();
        std::shared_ptr<ContextNode> up = std::move(parent);
        while (up.use_count() == 1) {
            // That count is read relaxed. To copy the handle is an acquire: what others did with
            // the node has been done.
            const std::shared_ptr<ContextNode> now_ours = up;
            up = std::move(now_ours->parent);
        }
    }

    std::shared_ptr<ContextNode> parent;
    std::shared_ptr<ContextEnd> end; // its own, or its parent's
    const std::type_info* key = nullptr;
    std::shared_ptr<const void> value;
};

namespace {

ContextEnd* end_of(const std::shared_ptr<ContextNode>& node) {
    return node ? node->end.get() : nullptr;
}

const std::error_code kTimedOut = std::make_error_code(std::errc::timed_out);

std::chrono::steady_clock::time_point time_point(std::int64_t when_ns) {
    return std::chrono::steady_clock::time_point(std::chrono::nanoseconds(when_ns));
}

/// A timer that is far from firing, as others may not see it yet.
void prepare_timer(const std::shared_ptr<ContextEnd>& e) {
    // It must not keep the context: where there is no handle, nobody has a use for the end.
    e->timer = after_func(std::chrono::hours::max(), [weak = std::weak_ptr(e)] {
        if (const auto self = weak.lock()) self->end(kTimedOut, nullptr);
    });
}

/// Also where its timer is late: waits with that deadline have been given up.
bool over_by_now(ContextEnd* e) {
    if (!e) return false;
    if (e->told_of()) return true;
    if (e->when_ns == Until::kNever || e->when_ns > kernel::nanotime()) return false;
    ContextEnd* first = e; // whose deadline it is
    while (first->above && first->above->when_ns == e->when_ns) first = first->above.get();
    first->end(kTimedOut, nullptr);
    e->end(first->err, first->cause); // who was before us there may not have come this far
    return true;
}

void start_timer(ContextEnd& e) {
    if (e.when_ns <= kernel::nanotime()) {
        e.end(kTimedOut, nullptr);
        return;
    }
    e.timer->reset(time_point(e.when_ns));
    if (e.told_of()) e.timer->stop(); // by who may have stopped it before that
}

} // namespace

} // namespace detail

std::optional<std::chrono::steady_clock::time_point> Context::deadline() const noexcept {
    const detail::ContextEnd* e = detail::end_of(node_);
    if (!e || e->when_ns == Until::kNever) return std::nullopt;
    return detail::time_point(e->when_ns);
}

RecvChan<std::monostate> Context::done() const noexcept {
    static const Chan<std::monostate> never = [] {
        Chan<std::monostate> some;
        const Chan<std::monostate> other = std::move(some);
        return some; // NOLINT(bugprone-use-after-move): that is what makes it nil
    }();
    const detail::ContextEnd* e = detail::end_of(node_);
    return e ? e->done : never;
}

std::stop_token Context::token() const noexcept {
    const detail::ContextEnd* e = detail::end_of(node_);
    return e ? e->source.get_token() : std::stop_token();
}

std::error_code Context::err() const noexcept {
    detail::ContextEnd* e = detail::end_of(node_);
    return detail::over_by_now(e) ? e->err : std::error_code();
}

std::exception_ptr Context::cause() const noexcept {
    detail::ContextEnd* e = detail::end_of(node_);
    return detail::over_by_now(e) ? e->cause : nullptr;
}

Context::operator Until() const {
    const detail::ContextEnd* e = detail::end_of(node_);
    if (!e) return {};
    if (e->when_ns == Until::kNever) return e->source.get_token();
    return {detail::time_point(e->when_ns), e->source.get_token()};
}

Context Context::derive(const Context& parent, const std::type_info& key,
                        std::shared_ptr<const void> value) {
    auto node = std::make_shared<detail::ContextNode>();
    node->parent = parent.node_;
    if (parent.node_) node->end = parent.node_->end;
    node->key = &key;
    node->value = std::move(value);
    Context context;
    context.become(std::move(node));
    return context;
}

const void* Context::find(const std::type_info& key) const noexcept {
    for (const detail::ContextNode* n = node_.get(); n; n = n->parent.get())
        if (n->key && *n->key == key) return n->value.get();
    return nullptr;
}

CancelContext::CancelContext(const Context& parent, std::int64_t when_ns) : Context(parent) {
    auto e = std::make_shared<detail::ContextEnd>();
    if (node()) e->above = node()->end;
    const std::int64_t others_ns = e->above ? e->above->when_ns : Until::kNever;
    e->when_ns = std::min(when_ns, others_ns);
    const bool timed = when_ns < others_ns; // else that is its parent's affair
    if (timed) detail::prepare_timer(e);
    auto n = std::make_shared<detail::ContextNode>();
    n->parent = node();
    n->end = e;
    become(std::move(n));
    if (e->above && !e->above->join(*e)) e->end(e->above->err, e->above->cause);
    if (timed) detail::start_timer(*e);
}

void CancelContext::cancel(const std::exception_ptr& cause) noexcept {
    if (detail::ContextEnd* e = detail::end_of(node()))
        e->end(std::make_error_code(std::errc::operation_canceled), cause);
}

CancelContext with_cancel(const Context& parent) { return {parent, Until::kNever}; }

} // namespace baton
