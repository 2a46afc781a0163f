// Which call of which method each thread of a process is in, kept in memory that another process reads: while the one
// hangs, and after it died.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace kvlab {

enum class Call : std::uint8_t {
  none,
  create,
  traits,
  bound,
  encode,
  decode,
  gather,
  prepared_bytes,
  prepare,
  scores,
  width,
  accumulate,
  finish,
  reads,
  scope,
  scratch,
  destroy
};
[[nodiscard]] const char* name_of(Call call);

struct OpenCall {
  std::string method;  // its id
  Call call;
  bool operator==(const OpenCall&) const = default;
};

// "quantize's encode", "one's encode or two's decode"; "" of none.
std::string to_text(const std::vector<OpenCall>& calls);

// The memory. One process makes it and reads it, another publishes its calls there.
class CallBoard {
 public:
  CallBoard();                 // new memory; forks share it
  explicit CallBoard(int fd);  // the memory of another process, by fd() as it was inherited; Error where that is none
  ~CallBoard();
  CallBoard(const CallBoard&) = delete;
  CallBoard& operator=(const CallBoard&) = delete;

  [[nodiscard]] int fd() const { return fd_; }  // closed on exec

  // From now on calls of this process are noted here, those of instances that are made later; and a thread that dies of
  // a signal is. The board must outlive them. Called at most once in a process, but for its forks.
  void publish();

  // The calls that were entered and not left, each once. After a crash only that of the thread which crashed: none
  // where that was in no call. At any time, from any process.
  [[nodiscard]] std::vector<OpenCall> open() const;

 private:
  struct Page;
  friend class InCall;
  friend std::uint32_t call_label(const std::string& method);
  friend std::string calling_method();
  static void on_crash(int signal);
  void map();

  int fd_;
  Page* page_ = nullptr;
};

// A number for a method's id on the published board, for InCall; 0 without a board. Thread safe.
std::uint32_t call_label(const std::string& method);

// The id of the method that this thread is in a call of; "" of none, and without a board.
std::string calling_method();

// While it lives this thread is in the call. Two stores: it may stand around calls of any length.
class InCall {
 public:
  InCall(std::uint32_t label, Call call);
  ~InCall();
  InCall(const InCall&) = delete;
  InCall& operator=(const InCall&) = delete;

 private:
  void* slot_;
  std::uint32_t outer_ = 0;
};

}  // namespace kvlab
