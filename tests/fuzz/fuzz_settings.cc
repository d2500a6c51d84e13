// Any bytes are settings, or one Error whose every line names the file.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/text.h"
#include "config/settings.h"
#include "storage/stores.h"

using guestagent::Error;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const guestagent::Settings settings = guestagent::parse_settings(text, "f.yaml", guestagent::store_sections());
    // What was accepted is within the limits that the layers above rely on.
    if (settings.mysql.advertised_address.empty()) std::abort();
    if (settings.snapshot.segment_bytes < (1u << 20) || settings.snapshot.segment_bytes > (64u << 20)) std::abort();
    if (settings.snapshot.memory_limit < 4 * settings.snapshot.segment_bytes) std::abort();
    if (!settings.mysql.data_dir.is_absolute() || !settings.agent.socket.is_absolute()) std::abort();
  } catch (const Error& e) {
    if (e.code() != guestagent::Code::invalid_argument || !guestagent::valid_utf8(e.what())) std::abort();
    std::string_view message = e.what();
    while (!message.empty()) {
      if (!message.starts_with("f.yaml")) std::abort();
      const std::size_t end = message.find('\n');
      message = end == std::string_view::npos ? std::string_view() : message.substr(end + 1);
    }
  }
  return 0;
}
