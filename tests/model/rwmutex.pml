/* Where the readers of a RWMutex are counted (src/sync/rwmutex.cpp, read_spread.hpp), for spin.
 * README.md beside this says how to run it.
 *
 * Purpose: every step by which a reader comes and leaves, in the word, on a biased CPU or on a slot,
 * and by which a writer looks for readers, waits for them, and changes how they count. Each rule has
 * a switch NO_xxx that drops it; check.sh proves that spin then finds an error.
 *
 * Threads: NR readers, NW writers. A reader is on either of two CPUs at each step that asks for one.
 * The first writer destroys the lock once it has locked it for the last time, which it does when all
 * others have had it for theirs, as a program may that counts them.
 *
 * One step (atomic) is what the machine makes one. All that readers and writers order by is changed
 * by locked instructions, so there are no store buffers. A restartable sequence is a step: a
 * membarrier ends those that are not through. What is guarded by the drain queue happens under
 * `queue`.
 *
 * Checked in every state: nobody reads while one writes; no count is less than nobody where the code
 * ends the process for that; nobody touches the lock once it is gone. At the end, as spin takes it
 * for an invalid end state: nobody sleeps for ever.
 *
 * Left out: the queue of the writers, and that of the readers but for who is woken (lock_word.hpp);
 * misuse; when it is worth to change how readers count: any time will do here.
 */
#ifndef NR
#define NR 2 /* readers */
#endif
#ifndef READS
#define READS 2 /* of each */
#endif
#ifndef NW
#define NW 1 /* writers */
#endif
#ifndef WRITES
#define WRITES 2 /* of the first; the others one less, but once */
#endif
#ifndef SLOTS
#define SLOTS 2 /* CPUs on which the lock has a slot, if it has any */
#endif
#ifndef BIASES
#define BIASES 0 /* how often a reader may bias it */
#endif
#ifndef SPREADS
#define SPREADS 2 /* how often a writer may spread it */
#endif

#define NT (NR + NW)
#define NONE NT

/* the word, the hint */
bool locked, readers_wait, draining, biased, spread;
short count;
bool hint_bias, hint_spread;
/* slots, by CPU */
bool owned[2], watched[2];
short slot[2], bias[2];
/* the drain queue, and who is in it */
bool queue;
byte drainer = NONE;
bool asleep[NT], let_in[NT];
byte nbiased, nspread;
/* to check */
byte reading, last;
bool writing, gone;

#define TOUCH assert(!gone)

inline on_a_cpu() {
    if
    :: c = 0
    :: c = 1
    fi
}

/* readers(): what the word says, then slot by slot */
inline readers() {
    atomic { TOUCH; n = count; s = spread }
    if
    :: s ->
        atomic { TOUCH; n = n + (owned[0] -> slot[0] : 0) }
        atomic { TOUCH; n = n + (owned[1] -> slot[1] : 0); s = false }
    :: else
    fi
}

inline take_queue() { atomic { !queue -> queue = true } }
inline leave_queue() { queue = false }

inline say_unparked() {
    atomic { TOUCH; draining = false; s = spread }
    if
    :: s ->
        atomic { TOUCH; watched[0] = false }
        atomic { TOUCH; watched[1] = false; s = false }
    :: else
    fi
}

inline wake_drainer() {
    take_queue();
    if
#ifdef NO_EMPTY_LOOK
    :: true ->
#else
    :: drainer == NONE -> leave_queue()
    :: else ->
#endif
        readers();
        if
        :: n > 0 || drainer == NONE -> n = 0; leave_queue()
        :: else ->
            n = 0;
            w = drainer;
            drainer = NONE;
            say_unparked();
            leave_queue();
            atomic { asleep[w] = false; w = 0 }
        fi
    fi
}

/* leave_word: what it said before decides */
inline leave_word() {
    atomic {
        TOUCH;
        n = count;
        count--;
        look = draining && (spread || n <= 1);
#ifdef NO_ELSEWHERE
        assert(n > 0)
#else
        assert(n > 0 || biased || spread || draining)
#endif
        n = 0
    }
    if
    :: look -> look = false; wake_drainer()
    :: else
    fi
}

proctype reader(byte me) {
    byte c, w, times;
    short n;
    bool s, look, hb, hs;
enter:
    atomic { TOUCH; hb = hint_bias; hs = hint_spread }
    if
    :: hb ->
        on_a_cpu();
        atomic {
            TOUCH;
            hb = false;
            if
            :: biased && c < SLOTS -> bias[c]++; c = 0; goto in
            :: else -> c = 0
            fi
        }
    :: else
    fi;
    if
    :: hs -> on_a_cpu()
    :: else -> goto enter_word
    fi;
    if
    :: !owned[c] -> c = 0; goto enter_word
    :: else
    fi;
    atomic { TOUCH; slot[c]++ } /* (A) */
    atomic {                    /* (B) */
        TOUCH;
        if
#ifdef NO_LOOK
        :: spread -> c = 0; goto in
#else
#ifdef NO_SPREAD_LOOK
        :: !locked -> c = 0; goto in
#else
        :: !locked && spread -> c = 0; goto in
#endif
#endif
        :: else
        fi
    }
#ifdef NO_SAME_SLOT
    on_a_cpu();
#endif
    atomic { TOUCH; slot[c]--; look = watched[c]; c = 0 } /* (E) */
    if
#ifndef NO_WAKE_BACK
    :: look -> look = false; wake_drainer()
#endif
    :: else -> look = false
    fi;
    goto wait;
enter_word:
    atomic {
        TOUCH;
        count++;
        if
        :: !locked -> goto in
        :: else
        fi
    }
    leave_word();
wait:
    atomic {
        TOUCH;
        if
        :: !locked -> count++; goto in
        :: else -> readers_wait = true; asleep[me] = true
        fi
    }
    atomic {
        !asleep[me] ->
        if
        :: let_in[me] -> let_in[me] = false
        :: else -> goto enter
        fi
    }
in:
    atomic { reading++; assert(!writing); times++; last = last + (times == READS -> 1 : 0) }
    if
    :: true
    :: nbiased < BIASES -> /* bias() */
        atomic {
            if
            :: !locked && !readers_wait && !biased -> biased = true; nbiased++; s = true
            :: else
            fi
        }
        if
        :: s -> atomic { hint_bias = true; s = false }
        :: else
        fi
    fi;
    atomic { hb = hint_bias; hs = hint_spread; reading-- }
    if
    :: hb ->
        on_a_cpu();
        atomic {
            TOUCH;
            hb = false;
            if
            :: biased && c < SLOTS -> bias[c]--; c = 0; goto left
            :: else -> c = 0
            fi
        }
    :: else
    fi;
    if
    :: hs -> on_a_cpu()
    :: else -> leave_word(); goto left
    fi;
    if
    :: !owned[c] -> c = 0; leave_word(); goto left
    :: else
    fi;
    atomic { TOUCH; slot[c]--; look = watched[c]; c = 0 } /* (E) */
    if
    :: look -> look = false; wake_drainer()
    :: else
    fi;
left:
    atomic { hb = false; hs = false }
    if
    :: times < READS -> goto enter
    :: else
    fi
}

/* Those that wait are woken: all counted, or none. */
inline let_go() {
    atomic {
        TOUCH;
        locked = false;
        if
        :: readers_wait ->
            readers_wait = false;
            if
            :: s = true
            :: s = false
            fi;
            w = 0;
            do
            :: w == NR -> break
            :: else ->
                if
                :: asleep[w] ->
                    asleep[w] = false;
                    let_in[w] = s;
                    count = count + (s -> 1 : 0)
                :: else
                fi;
                w++
            od;
            w = 0;
            s = false
        :: else
        fi
    }
}

inline end_bias() {
    atomic { TOUCH; hint_bias = false }
    atomic {
        TOUCH;
        biased = false; /* and a membarrier */
#ifndef NO_SAY_DRAINING
        draining = true
#endif
    }
    atomic { TOUCH; n = bias[0]; bias[0] = 0 }
    atomic { TOUCH; n = n + bias[1]; bias[1] = 0 }
    atomic { TOUCH; count = count + n; n = 0; draining = false }
}

proctype writer(byte me) {
    byte w, times;
    short n, in_word, in_0, in_1;
    bool s, was_spread, ends, limited;
lock:
    ends = (me == NR && times + 1 == WRITES);
    if
    :: ends -> last == NR + NW - 1
    :: else
    fi;
#ifdef NO_LOCK_FIRST
    readers();
    if
    :: n != 0 -> n = 0; goto lock
    :: else
    fi;
#endif
    atomic {
        TOUCH;
        !locked -> locked = true; /* (C) */
        last = last + (me != NR && times + 1 >= WRITES - 1 -> 1 : 0)
    }
#ifdef NO_LOCK_FIRST
    goto inside;
#endif
    was_spread = spread;
    if
    :: biased -> end_bias()
    :: else
    fi;
drain:
    readers(); /* (D) */
    assert(n >= 0);
    if
    :: n == 0 -> goto drained
    :: else -> n = 0
    fi;
    take_queue();
    atomic { TOUCH; draining = true; s = spread } /* (F) */
#ifdef NO_WATCH
    s = false;
#endif
    if
    :: s ->
        atomic { TOUCH; watched[0] = true }
        atomic { TOUCH; watched[1] = true; s = false }
    :: else
    fi;
#ifndef NO_SUM_AGAIN
    readers(); /* (G) */
    if
    :: n == 0 -> say_unparked(); leave_queue(); goto drain
    :: else -> n = 0
    fi;
#endif
    atomic {
        if
        :: !ends -> limited = true
        :: true
        fi;
        drainer = me;
        asleep[me] = true;
        queue = false
    }
    if
    :: atomic { !asleep[me] -> limited = false; goto drain }
    :: atomic {
           limited && drainer == me && !queue ->
           queue = true;
           drainer = NONE;
           asleep[me] = false;
           limited = false
       }
    fi;
    /* gives up */
    say_unparked();
    leave_queue();
    readers();
    if
    :: n != 0 -> n = 0; goto unlock
    :: else
    fi;
drained:
    if
    :: true
    :: was_spread -> /* weigh(), settle() */
        atomic { TOUCH; in_word = count }
        atomic { TOUCH; in_0 = (owned[0] -> slot[0] : 0) }
        atomic { TOUCH; in_1 = (owned[1] -> slot[1] : 0) }
        if
#ifdef NO_SETTLE_LOOK
        :: true ->
#else
        :: in_word + in_0 + in_1 == 0 ->
#endif
            atomic { TOUCH; slot[0] = slot[0] - in_0 }
            atomic { TOUCH; slot[1] = slot[1] - in_1 }
            atomic { TOUCH; hint_spread = false }
            atomic { TOUCH; count = count - in_word; spread = false }
#ifndef NO_SETTLE_LOOK
        :: else
#endif
        fi;
        atomic { in_word = 0; in_0 = 0; in_1 = 0 }
    :: !was_spread && nspread < SPREADS -> /* spread() */
        atomic { TOUCH; owned[0] = true }
        atomic { TOUCH; owned[1] = (SLOTS == 2) }
        atomic { TOUCH; spread = true; nspread++ }
        atomic { TOUCH; hint_spread = true }
    fi;
inside:
    atomic { writing = true; assert(reading == 0) }
    atomic { writing = false }
    if
    :: ends -> goto destroy
    :: else
    fi;
unlock:
    was_spread = false;
    let_go();
    times++;
    if
    :: times < WRITES - (me == NR -> 0 : 1) -> goto lock
    :: else -> goto finished
    fi;
destroy:
    let_go();
    if
    :: biased -> end_bias()
    :: else
    fi;
    readers();
    assert(n == 0);
    atomic { owned[0] = false; owned[1] = false; slot[0] = 0; slot[1] = 0; gone = true }
finished:
    skip
}

init {
    byte t;
    atomic {
        do
        :: t == NT -> break
        :: t < NR -> run reader(t); t++
        :: else -> run writer(t); t++
        od
    }
}
