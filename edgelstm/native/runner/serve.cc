#include "serve.h"

#include <unistd.h>

#include <condition_variable>
#include <cstdio>
#include <exception>
#include <mutex>
#include <new>
#include <queue>
#include <thread>

#include "agent_error.h"

namespace {

std::mutex g_lock;
std::condition_variable g_arrived;
std::queue<std::string> g_requests;

// Reads a line; false at the end of stdin.
bool ReadLine(std::string* line) {
  line->clear();
  for (int c; (c = std::fgetc(stdin)) != EOF;) {
    if (c == '\n') return true;
    *line += static_cast<char>(c);
  }
  return false;
}

Json::Object Answer(const std::map<std::string, Handler>& handlers, const Json& request) {
  const std::string& command = request["command"].Text();
  if (command == "bye") return {{"ok", true}};
  const auto found = handlers.find(command);
  if (found == handlers.end()) throw AgentError("agent", "unknown command '" + command + "'");
  Json::Object answer = found->second(request);
  answer.emplace_back("ok", true);
  return answer;
}

Json::Object Refusal(const std::string& kind, const std::string& message) {
  return {{"ok", false}, {"kind", kind}, {"message", message}};
}

}  // namespace

void Serve(const std::map<std::string, Handler>& handlers, const std::function<void()>& at_end) {
  // Libraries print to descriptor 1: it becomes stderr, and answers get their own.
  std::FILE* answers = fdopen(dup(1), "w");
  dup2(2, 1);
  const auto end = [&]() {
    at_end();
    // Not exit(): destructors of half-built interpreters have no part in a result.
    _exit(0);
  };
  std::thread([&end]() {
    std::string line;
    while (ReadLine(&line)) {
      const std::lock_guard<std::mutex> hold(g_lock);
      g_requests.push(line);
      g_arrived.notify_one();
    }
    // The host has gone. Ending here also ends an inference that never returns.
    end();
  }).detach();
  while (true) {
    std::string line;
    {
      std::unique_lock<std::mutex> hold(g_lock);
      g_arrived.wait(hold, []() { return !g_requests.empty(); });
      line = g_requests.front();
      g_requests.pop();
    }
    Json request;
    Json::Object answer;
    try {
      request = Json::Parse(line);
      answer = Answer(handlers, request);
    } catch (const AgentError& error) {
      answer = Refusal(error.kind, error.what());
    } catch (const std::bad_alloc&) {
      answer = Refusal("unsupported", "out of memory");
    } catch (const std::exception& error) {
      answer = Refusal("agent", error.what());
    }
    const std::string text = Json(answer).Dump() + "\n";
    if (std::fwrite(text.data(), 1, text.size(), answers) != text.size() ||
        std::fflush(answers) != 0 || request["command"].Text() == "bye") {
      end();
    }
  }
}
