#include "core/method/calls.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <mutex>

#include "core/base/error.hpp"

namespace kvlab {
namespace {

constexpr std::size_t most_threads = 2048;
constexpr std::size_t most_methods = 64;
constexpr std::size_t name_bytes = 64;

// A cache line, so that threads do not wait for each other's. Bits 0 .. 7 are the call, the rest the method's label.
struct alignas(64) Slot {
  std::atomic<std::uint32_t> call;
};
static_assert(std::atomic<std::uint32_t>::is_always_lock_free);

constexpr std::array deadly{SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS};
std::array<struct sigaction, deadly.size()> before;  // what the process did with them

thread_local Slot* own_slot = nullptr;  // no destructor: a signal handler may look at any time

}  // namespace

// Zero is its first state.
struct CallBoard::Page {
  std::atomic<std::uint32_t> threads;
  std::atomic<std::uint32_t> methods;
  std::atomic<std::uint32_t> crashed;  // 1 + the slot of the thread that did
  std::array<std::array<char, name_bytes>, most_methods> names;
  std::array<Slot, most_threads> slots;

  [[nodiscard]] std::string name(std::uint32_t label) const {
    if (label == 0 || label > most_methods) return "";
    return {names[label - 1].data(), strnlen(names[label - 1].data(), name_bytes)};
  }
};

namespace {
std::atomic<void*> published{nullptr};  // a Page
std::mutex naming;
}  // namespace

const char* name_of(Call call) {
  constexpr std::array names{"no call", "create",         "traits",  "bound",   "encode", "decode",
                             "gather",  "prepared_bytes", "prepare", "scores",  "width",  "accumulate",
                             "finish",  "reads",          "scope",   "scratch", "destroy"};
  const auto index = static_cast<std::size_t>(call);
  return index < names.size() ? names.at(index) : "an unknown call";
}

std::string to_text(const std::vector<OpenCall>& calls) {
  std::string text;
  for (const OpenCall& open : calls) {
    if (!text.empty()) text += " or ";
    text += open.method + "'s " + name_of(open.call);
  }
  return text;
}

// Sealed: where a plugin cut the file short, who reads the page would die of SIGBUS.
CallBoard::CallBoard() : fd_(memfd_create("kvlab-calls", MFD_CLOEXEC | MFD_ALLOW_SEALING)) {
  if (fd_ < 0 || ftruncate(fd_, sizeof(Page)) != 0 ||
      fcntl(fd_, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    throw Error("cannot make memory for the calls of a process");
  }
  map();
}

CallBoard::CallBoard(int fd) : fd_(fd) { map(); }

void CallBoard::map() {
  struct stat file{};
  void* memory = MAP_FAILED;
  if (fstat(fd_, &file) == 0 && file.st_size >= static_cast<off_t>(sizeof(Page))) {
    memory = mmap(nullptr, sizeof(Page), PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
  }
  if (memory == MAP_FAILED) {
    close(fd_);
    throw Error("cannot share memory for the calls of a process");
  }
  page_ = static_cast<Page*>(memory);
}

CallBoard::~CallBoard() {
  if (published == page_) published = nullptr;
  munmap(page_, sizeof(Page));
  close(fd_);
}

// Notes the thread, and lets the signal do what it would have done.
void CallBoard::on_crash(int signal) {
  auto* page = static_cast<Page*>(published.load());
  if (page != nullptr && own_slot != nullptr && page->crashed == 0) {
    page->crashed = static_cast<std::uint32_t>(own_slot - page->slots.data()) + 1;
  }
  for (std::size_t i = 0; i < deadly.size(); ++i) {
    if (deadly[i] == signal) sigaction(signal, &before[i], nullptr);
  }
  raise(signal);  // it waits until this handler has returned
}

void CallBoard::publish() {
  published = page_;
  own_slot = nullptr;  // a fork's would be its parent's
  struct sigaction action{};
  action.sa_handler = &on_crash;
  action.sa_flags = SA_ONSTACK;
  for (std::size_t i = 0; i < deadly.size(); ++i) sigaction(deadly[i], &action, &before[i]);
}

std::vector<OpenCall> CallBoard::open() const {
  std::vector<OpenCall> calls;
  const auto add = [&](const Slot& slot) {
    const std::uint32_t value = slot.call;
    const OpenCall found{page_->name(value >> 8), static_cast<Call>(value & 0xff)};
    if (found.call == Call::none || found.method.empty()) return;
    if (std::find(calls.begin(), calls.end(), found) == calls.end()) calls.push_back(found);
  };
  const std::uint32_t crashed = page_->crashed;
  if (crashed > 0 && crashed <= most_threads) {
    add(page_->slots[crashed - 1]);
    return calls;
  }
  const std::size_t threads = std::min<std::size_t>(page_->threads, most_threads);
  for (std::size_t i = 0; i < threads; ++i) add(page_->slots[i]);
  return calls;
}

std::uint32_t call_label(const std::string& method) {
  auto* page = static_cast<CallBoard::Page*>(published.load());
  if (page == nullptr) return 0;
  const std::string name = method.substr(0, name_bytes - 1);
  const std::scoped_lock lock(naming);
  const std::uint32_t known = page->methods;
  for (std::uint32_t i = 0; i < known; ++i) {
    if (name == page->names[i].data()) return i + 1;
  }
  if (known == most_methods) return 0;
  std::copy(name.begin(), name.end(), page->names[known].begin());
  page->methods = known + 1;
  return known + 1;
}

std::string calling_method() {
  const auto* page = static_cast<CallBoard::Page*>(published.load());
  return page == nullptr || own_slot == nullptr ? "" : page->name(own_slot->call >> 8);
}

InCall::InCall(std::uint32_t label, Call call) : slot_(nullptr) {
  auto* page = static_cast<CallBoard::Page*>(published.load(std::memory_order_relaxed));
  if (page == nullptr || label == 0) return;
  if (own_slot == nullptr) own_slot = &page->slots[page->threads++ % most_threads];
  slot_ = own_slot;
  outer_ = own_slot->call.load(std::memory_order_relaxed);
  own_slot->call.store(label << 8 | static_cast<std::uint32_t>(call), std::memory_order_relaxed);
}

InCall::~InCall() {
  if (slot_ != nullptr) static_cast<Slot*>(slot_)->call.store(outer_, std::memory_order_relaxed);
}

}  // namespace kvlab
