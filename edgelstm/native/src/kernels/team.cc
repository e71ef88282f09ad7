#include "kernels/team.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#include <cstdlib>
#include <new>

// The C library of 2021 moved these to another file under a new version; the old one is in both.
// A shared library asks for the old one, to load with older ones; a static C library has neither.
#if defined(EDGELSTM_SHARED) && defined(__GLIBC__) && !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
#if defined(__x86_64__)
#define EDGELSTM_OLD_GLIBC "GLIBC_2.2.5"
#elif defined(__aarch64__)
#define EDGELSTM_OLD_GLIBC "GLIBC_2.17"
#elif defined(__arm__)
#define EDGELSTM_OLD_GLIBC "GLIBC_2.4"
#endif
#endif
#if defined(EDGELSTM_OLD_GLIBC)
asm(".symver pthread_create,pthread_create@" EDGELSTM_OLD_GLIBC);
asm(".symver pthread_join,pthread_join@" EDGELSTM_OLD_GLIBC);
#endif

namespace edgelstm {
namespace {

// 40 to 160 microseconds; waking takes as long. More is worse where members share a processor, and
// so is `sched_yield` where others compute too.
constexpr int kSpins = 4000;

void Pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
  asm volatile("yield" ::: "memory");
#endif
}

// Whom a thread wakes the system may put behind it, on one processor, where it runs when the other
// parks, milliseconds later. Keeps a thread off the processor of its waker beforehand, if there is
// another; `own` becomes what to give back, of 0 bytes if nothing changed.
void KeepOff(int processor, int thread, Processors* own) {
  constexpr int kBits = 8 * sizeof(unsigned long);
  own->bytes = 0;
  if (thread == 0 || processor < 0 || processor >= Processors::kWords * kBits) return;
  const long bytes = syscall(SYS_sched_getaffinity, thread, sizeof own->bits, own->bits);
  if (bytes <= 0) return;
  Processors others = *own;
  others.bits[processor / kBits] &= ~(1ul << (processor % kBits));
  if (syscall(SYS_sched_setaffinity, thread, bytes, others.bits) == 0) own->bytes = bytes;
}

}  // namespace

void Barrier::Wait() {
  const uint32_t phase = __atomic_load_n(&phase_, __ATOMIC_RELAXED);
  if (__atomic_add_fetch(&arrived_, 1, __ATOMIC_ACQ_REL) == static_cast<uint32_t>(size_)) {
    __atomic_store_n(&arrived_, 0, __ATOMIC_RELAXED);
    // In one order with `parked_`: whoever parks sees the new phase or is seen here.
    __atomic_store_n(&phase_, phase + 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&parked_, __ATOMIC_SEQ_CST) != 0) {
      syscall(SYS_futex, &phase_, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
    }
    return;
  }
  for (int i = 0; i < kSpins; ++i) {
    if (__atomic_load_n(&phase_, __ATOMIC_ACQUIRE) != phase) return;
    Pause();
  }
  __atomic_add_fetch(&parked_, 1, __ATOMIC_SEQ_CST);
  while (__atomic_load_n(&phase_, __ATOMIC_SEQ_CST) == phase) {
    syscall(SYS_futex, &phase_, FUTEX_WAIT_PRIVATE, phase, nullptr, nullptr, 0);
  }
  __atomic_sub_fetch(&parked_, 1, __ATOMIC_SEQ_CST);
}

Team* Team::Start(int threads) {
  if (threads > kMostThreads) threads = kMostThreads;
  void* memory = threads < 2 ? nullptr : std::malloc(sizeof(Team));
  if (memory == nullptr) return nullptr;
  Team* team = new (memory) Team();
  team->barrier_.SetSize(threads);
  team->size_ = threads;
  int started = 1;
  for (; started < threads; ++started) {
    Worker& worker = team->workers_[started];
    worker = {team, started, 0, 0, {}};
    pthread_t thread;
    if (pthread_create(&thread, nullptr, Work, &worker) != 0) break;
    worker.thread = static_cast<unsigned long>(thread);
  }
  if (started < threads) {
    // Those that run wait for a barrier of another size; it is told before anyone else comes.
    team->barrier_.SetSize(started);
    team->size_ = started;
    Stop(team);
    return nullptr;
  }
  return team;
}

void Team::Stop(Team* team) {
  if (team == nullptr) return;
  team->job_ = nullptr;
  team->barrier_.Wait();
  for (int i = 1; i < team->size_; ++i) {
    pthread_join(static_cast<pthread_t>(team->workers_[i].thread), nullptr);
  }
  std::free(team);
}

void Team::Run(Job job, void* context) {
  job_ = job;
  context_ = context;
  const int processor = barrier_.AnyParked() ? sched_getcpu() : -1;
  for (int i = 1; i < size_; ++i) {
    Worker& worker = workers_[i];
    KeepOff(processor, __atomic_load_n(&worker.id, __ATOMIC_RELAXED), &worker.own);
  }
  barrier_.Wait();
  Member member;
  member.size = size_;
  member.barrier = &barrier_;
  job(context, member);
  barrier_.Wait();
}

void* Team::Work(void* data) {
  Worker& worker = *static_cast<Worker*>(data);
  Team& team = *worker.team;
  __atomic_store_n(&worker.id, static_cast<int>(syscall(SYS_gettid)), __ATOMIC_RELAXED);
  for (;;) {
    team.barrier_.Wait();
    if (team.job_ == nullptr) return nullptr;
    const Processors& own = worker.own;
    if (own.bytes != 0) syscall(SYS_sched_setaffinity, 0, own.bytes, own.bits);
    Member member;
    member.index = worker.index;
    member.size = team.size_;
    member.barrier = &team.barrier_;
    team.job_(team.context_, member);
    team.barrier_.Wait();
  }
}

}  // namespace edgelstm
