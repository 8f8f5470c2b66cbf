/* Who is woken for a G that is readied on a busy P (src/runtime/handoff.cpp, findrunnable.cpp), and
 * when nobody is, as a pair of Gs is left together (pair.cpp), for spin. README.md beside this says
 * how to run it.
 *
 * Purpose: no such G is forgotten, whoever of those that could wake somebody leaves it to whom: who
 * readies it, an M that looks for work or ceases to, one that goes idle without having looked, the
 * watcher of the P, an understudy. Each rule has a switch NO_xxx that drops it; check.sh proves that
 * spin then finds an error.
 *
 * Threads: the owner, which has the P and readies TURNS Gs there, parks for the one it readied or
 * computes on for ever, as it likes; NM other Ms, which share NIDLE idle Ps, sleep, look for work,
 * and watch. An M that takes a G runs it and comes back. ELSEWHERE: so many wakes for other work come
 * at any time, to any M that sleeps. UNDERSTUDY: there is one, with a claim that is in vain. THEFT:
 * once, an M that works and has never looked takes Gs from the P to its own (steal_stalled).
 *
 * One step (atomic) is what the machine makes one. Whatever orders something here is a locked
 * instruction or comes after one (seq_cst in the code), so there are no store buffers.
 *
 * Checked: where nothing moves any more, no G waits on the P while an idle P is there for it. The
 * watcher's timed look counts as moving: it goes on for as long as somebody watches.
 *
 * Left out: how long anything takes (kTurnNs): a watcher that sees too little happen ends the pair,
 * and may where enough does; the ring but for how many it holds; that several Ms may look for work
 * at once; blocked Ps (ownership.pml).
 */
#ifndef TURNS
#define TURNS 3
#endif
#ifndef NM
#define NM 2
#endif
#ifndef NIDLE
#define NIDLE 1
#endif
#ifndef ELSEWHERE
#define ELSEWHERE 1
#endif

/* the P */
bool runnext;
byte ring, unwoken;
byte watcher; /* 0, or the M */
/* all Ms */
byte nmspinning, npidle = NIDLE, elsewhere = ELSEWHERE;
bool needspinning;
bool computes; /* the owner, for ever */
/* on the thief's P; it has been there; it computes for ever */
byte own;
bool stole, thief_computes;
/* by M: asleep; given a P, to look for work or for something else */
#define LOOK 1
#define ELSE 2
bool asleep[NM + 1];
byte given[NM + 1];

#define empty (!runnext && ring == 0)
#define only_next (ring == 0)

/* an M that sleeps is given the P that was taken off the idle list */
inline start_m(what) {
    if
    :: atomic { asleep[1] -> asleep[1] = false; given[1] = what }
#if NM > 1
    :: atomic { asleep[2] -> asleep[2] = false; given[2] = what }
#endif
#if NM > 2
    :: atomic { asleep[3] -> asleep[3] = false; given[3] = what }
#endif
    fi
}

/* no P for new work: whoever goes idle next is to look for it */
inline left_to_who_idles() {
    if
    :: npidle != 0 -> done = false
    :: else ->
        if
        :: needspinning -> done = true
        :: else -> needspinning = true; done = npidle == 0
        fi
    fi
}

/* NO_NEED_AGAIN: that is said before the claim, not where it was in vain. NO_LOWER_FIRST: it is said
 * there before the claim is given back. */
inline wakep() {
    if
    :: nmspinning != 0 -> done = true
    :: else -> left_to_who_idles()
    fi;
    do
    :: done -> done = false; break
    :: else ->
        if
        :: atomic { nmspinning == 0 -> nmspinning = 1 };
            if
            :: atomic { npidle > 0 -> npidle-- }; start_m(LOOK); done = true
            :: npidle == 0 ->
#ifdef NO_LOWER_FIRST
                left_to_who_idles();
                nmspinning--
#else
                nmspinning--;
#ifdef NO_NEED_AGAIN
                done = npidle == 0
#else
                left_to_who_idles()
#endif
#endif
            fi
        :: nmspinning != 0 -> done = true
        fi
    od
}

/* pidleget_spinning: a P for work that was found, under sched.lock as what puts one there.
 * NO_NEED_FOUND: where there is none, nobody is told. */
inline get_idle() {
    if
    :: atomic { npidle > 0 -> npidle--; done = true }
#ifdef NO_NEED_FOUND
    :: npidle == 0
#else
    :: atomic { npidle == 0 -> needspinning = true }
#endif
    fi
}

/* goready's end: goes without a wake if the watcher sees to it. NO_LOOK_AFTER: looked before it was
 * published. */
inline ready() {
#ifdef NO_LOOK_AFTER
    left = watcher != 0;
#endif
    atomic { ring = ring + runnext; runnext = true }
#ifndef NO_LOOK_AFTER
    left = watcher != 0;
#endif
    if
    :: left ->
        left = only_next;
        unwoken++;
#ifndef NO_LOOK_AFTER
        left = left && watcher != 0
#endif
    :: else
    fi
    if
    :: left -> left = false
    :: else -> wakep()
    fi
}

proctype Owner() {
    bool left, done;
    byte turns;
    do
    :: turns < TURNS -> turns++; ready()
    /* it parks: runs what it finds, which readies the next or is the last */
    :: atomic { runnext -> runnext = false }
    :: atomic { !runnext && ring > 0 -> ring-- }
    :: computes = true; break
    od
}

/* clears the mark and has somebody look, unless this M goes on to look itself. NO_CLEAR_FIRST: looked
 * before it was cleared. NO_LOOK_BEHIND: not looked at all. */
inline end_pair(looks) {
#ifdef NO_CLEAR_FIRST
    found = !empty;
#endif
    watches = false;
    watcher = 0;
#ifndef NO_CLEAR_FIRST
    found = !empty;
#endif
#ifdef NO_LOOK_BEHIND
    found = false;
#endif
    if
    :: !(looks) && found -> wakep()
    :: else
    fi
    found = false
}

inline steal_from_p() {
    if
    :: atomic { ring > 0 -> ring--; got = true }
    :: ring == 0 && !runnext
    :: ring == 0 && runnext ->
        if
        :: !watches ->
            if
            :: atomic { watcher == 0 -> watcher = me }; watches = true
            :: watcher != 0 && watcher != me
            fi
        :: else
        fi;
        if
        :: watches ->
            seen = unwoken; /* and a moment passes */
            if
            :: unwoken == seen ->
                end_pair(true);
                if
                :: atomic { runnext -> runnext = false; got = true }
                :: !runnext
                fi
            :: unwoken != seen
            fi;
            seen = 0
        :: else
        fi
    fi
}

/* one pass over the Ps' queues, of an M that has a P and looks for work */
inline steal() {
    got = false;
    if
#ifdef THEFT
    :: atomic { own > 0 -> own--; got = true }
    :: own == 0 -> steal_from_p()
#else
    :: steal_from_p()
#endif
    fi
}

inline any_work_of_p() {
    if
    :: found ->
#ifdef NO_MARK
        found = false;
#else
        found = watcher == 0;
#endif
        if
        :: !only_next -> found = true
        :: else
        fi
    :: else
    fi
}

/* the last look of an M that ceases to look: passes over a P that somebody watches. NO_MARK: over any
 * that has but one G. */
inline any_work() {
    found = own > 0;
    if
    :: found
    :: else -> found = !empty; any_work_of_p()
    fi
}

proctype M(byte me) {
    bool watches, got, found, spinning, done;
    byte seen;
sleep:
    atomic { asleep[me] = true };
end_wait:
    if
    :: atomic { given[me] == LOOK -> given[me] = 0; spinning = true };
        if
        :: watches -> end_pair(true)
        :: else
        fi
    :: atomic { given[me] == ELSE -> given[me] = 0 };
#ifndef NO_GIVEN
        if
        :: watches -> end_pair(false)
        :: else
        fi;
#endif
        if
        :: goto work
        :: goto end /* computes for ever */
        fi
    :: watches -> /* its timed look, unless it is being given a P */
        if
        :: atomic { asleep[me] -> skip };
            if
            :: unwoken == 0 -> end_pair(false)
            :: atomic { unwoken > 0 -> unwoken = 0 } /* counts on, or has seen enough */
            :: unwoken > 0 -> end_pair(false)
            fi
        :: !asleep[me]
        fi;
        goto end_wait
    fi;
look:
    steal();
    if
    :: got ->
        got = false;
        if
        :: watches -> end_pair(true)
        :: else
        fi;
        spinning = false;
        nmspinning--;
        wakep();
work:
        skip; /* a G, that ends */
#ifdef THEFT
        if
        :: atomic { !stole && ring > 1 -> ring = ring - 2; own = 1; stole = true };
#ifndef NO_THEFT_WAKE
            wakep();
#endif
            if
            :: thief_computes = true; goto end
            :: atomic { own > 0 -> own-- }
            :: own == 0
            fi
        :: skip
        fi;
#endif
        if
        :: atomic { nmspinning == 0 -> nmspinning++; spinning = true; needspinning = false };
            goto look
        :: nmspinning != 0 -> skip
        fi
    :: else
    fi;
    atomic {
        if
        :: !spinning && needspinning ->
            nmspinning++;
            spinning = true;
            needspinning = false;
            goto look
        :: else -> npidle++
        fi
    };
    if
    :: spinning ->
        spinning = false;
        nmspinning--;
        any_work()
    :: else -> found = needspinning
    fi;
    if
    :: found ->
        found = false;
        get_idle();
        if
        :: done -> atomic { done = false; nmspinning++; spinning = true; needspinning = false }; goto look
        :: else
        fi
    :: else
    fi;
    goto sleep;
end:
    false
}

/* what else there is to do: anybody who sleeps is given a P for it */
proctype Elsewhere() {
    do
    :: atomic { elsewhere > 0 && npidle > 0 -> elsewhere--; npidle-- }; start_m(ELSE)
    :: elsewhere == 0 -> break
    :: timeout -> break
    od
}

/* an understudy whose claim to look for work is in vain, and sysmon, whom it tells. NO_NEED_VAIN:
 * whoever gives a P up next is not told. NO_SYSMON: nor is sysmon, where a P is idle. */
proctype Understudy() {
    bool done;
    if
    :: atomic { nmspinning == 0 -> nmspinning = 1 };
        nmspinning--;
#ifndef NO_NEED_VAIN
        needspinning = true;
#endif
#ifndef NO_SYSMON
        if
        :: npidle != 0 -> needspinning = false; wakep()
        :: else
        fi
#endif
    :: skip
    fi
}

/* nothing moves: the G of a P whose owner computes for ever must not be waiting */
proctype Judge() {
    timeout;
    assert(!(computes && !empty && npidle > 0));
    assert(!(thief_computes && own > 0 && npidle > 0))
}

init {
    atomic {
        run Owner();
        run M(1);
#if NM > 1
        run M(2);
#endif
#if NM > 2
        run M(3);
#endif
        run Elsewhere();
#ifdef UNDERSTUDY
        run Understudy();
#endif
        run Judge()
    }
}
