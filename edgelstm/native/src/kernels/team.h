// Threads that compute one call together.
#pragma once

#include <cstdint>


namespace edgelstm {

// Every member of a team waits until all have come. Spins, as steps take microseconds, and parks
// when that takes too long. Never locks.
class Barrier {
 public:
  void SetSize(int size) { size_ = size; }
  void Wait();
  bool AnyParked() const { return __atomic_load_n(&parked_, __ATOMIC_RELAXED) != 0; }

 private:
  int size_ = 1;
  // Atomics of the compiler: <atomic> has inline functions, which files with instruction sets of
  // their own must not use.
  uint32_t arrived_ = 0, phase_ = 0, parked_ = 0;
};

// A set of processors as the system has it.
struct Processors {
  static constexpr int kWords = 16;
  unsigned long bits[kWords];
  long bytes;
};

// One thread's place in its team; alone without a barrier.
struct Member {
  int index = 0;
  int size = 1;
  Barrier* barrier = nullptr;

  void Wait() const {
    if (barrier != nullptr) barrier->Wait();
  }
  // Its part of `count` things: those from `begin` of the next member on are not its.
  int64_t Begin(int64_t count) const { return count * index / size; }
  int64_t End(int64_t count) const { return count * (index + 1) / size; }
};

// Threads that wait for jobs. Starting and stopping them allocates; running does not.
class Team {
 public:
  using Job = void (*)(void* context, const Member& member);

  static constexpr int kMostThreads = 16;

  // Null if memory is short or no thread can be started; `threads` counts the caller's.
  static Team* Start(int threads);
  static void Stop(Team* team);

  int size() const { return size_; }
  // The job in every thread and in the caller's; returns when all have done it.
  void Run(Job job, void* context);

 private:
  static void* Work(void* member);

  struct Worker {
    Team* team;
    int index;
    unsigned long thread;
    // The system's name of the thread; 0 until it runs.
    int id;
    // What it may run on, kept by the caller where it changed that.
    Processors own;
  };
  Barrier barrier_;
  int size_;
  Job job_;
  void* context_;
  Worker workers_[kMostThreads];
};

}  // namespace edgelstm
