#include "stream/codec.h"

#include <archive.h>
#include <archive_entry.h>

#include <algorithm>
#include <array>
#include <exception>
#include <memory>
#include <string>

#include "base/error.h"
#include "stream/zstd_frame.h"

namespace guestagent {
namespace {

struct CodecRow {
  Codec codec;
  std::string_view name;
  std::string_view suffix;
  const char* options;  // beside the level
  int filter;
  int (*add_writer)(archive*);
  int (*add_reader)(archive*);
};

// "!timestamp": the same bytes in give the same bytes out.
constexpr std::array<CodecRow, 4> kCodecs = {{
    {Codec::none, "none", "", "", ARCHIVE_FILTER_NONE, nullptr, nullptr},
    {Codec::zstd, "zstd", "zst", "", ARCHIVE_FILTER_ZSTD, archive_write_add_filter_zstd,
     archive_read_support_filter_zstd},
    {Codec::lz4, "lz4", "lz4", "", ARCHIVE_FILTER_LZ4, archive_write_add_filter_lz4, archive_read_support_filter_lz4},
    {Codec::gzip, "gzip", "gz", ",!timestamp", ARCHIVE_FILTER_GZIP, archive_write_add_filter_gzip,
     archive_read_support_filter_gzip},
}};

// What `lz4` itself writes for nothing; libarchive's writer dereferences a null pointer there.
constexpr std::string_view kEmptyLz4Frame("\x04\x22\x4d\x18\x64\x40\xa7\x00\x00\x00\x00\x05\x5d\xcc\x02", 15);

const CodecRow& row(Codec codec) {
  return kCodecs[static_cast<std::size_t>(codec)];
}

std::string reason(archive* a) {
  const char* text = archive_error_string(a);
  return text == nullptr ? "unknown error" : text;
}

// C code calls these, so no exception may leave them: it waits here.
struct Output {
  Buffer buffer;
  std::exception_ptr error;

  static la_ssize_t write(archive*, void* self, const void* data, std::size_t size) {
    auto* const output = static_cast<Output*>(self);
    try {
      output->buffer.append(Bytes(static_cast<const std::byte*>(data), size));
      return static_cast<la_ssize_t>(size);
    } catch (...) {
      output->error = std::current_exception();
      return -1;
    }
  }
};

struct StoredInput {
  Buffer rest;
  Buffer current;  // stays valid until the next call, as libarchive wants it
  std::exception_ptr error;

  static la_ssize_t read(archive*, void* self, const void** data) {
    auto* const input = static_cast<StoredInput*>(self);
    try {
      input->current = input->rest.pop_front();
      if (input->current.empty()) return 0;
      const Bytes chunk = input->current.chunks().front();
      *data = chunk.data();
      return static_cast<la_ssize_t>(chunk.size());
    } catch (...) {
      input->error = std::current_exception();
      return -1;
    }
  }
};

Error damaged(Codec codec, const std::string& why) {
  return Error(Code::data_loss, "decompressing " + std::string(row(codec).name) + ": " + why);
}

}  // namespace

std::string_view codec_name(Codec codec) {
  return row(codec).name;
}
std::string_view codec_suffix(Codec codec) {
  return row(codec).suffix;
}

Codec codec_from(std::string_view name) {
  for (const CodecRow& r : kCodecs) {
    if (r.name == name) return r.codec;
  }
  throw Error(Code::invalid_argument, "choosing a compression: \"" + std::string(name) + "\": not known",
              "use zstd, lz4, gzip or none");
}

Buffer compress(Codec codec, int level, Buffer raw) {
  if (codec == Codec::none) return raw;
  if (codec == Codec::lz4 && raw.empty()) return Buffer::from(kEmptyLz4Frame);
  const CodecRow& r = row(codec);
  Output output;
  const std::unique_ptr<archive, int (*)(archive*)> a(archive_write_new(), archive_write_free);
  const std::unique_ptr<archive_entry, void (*)(archive_entry*)> entry(archive_entry_new(), archive_entry_free);
  if (a == nullptr || entry == nullptr) throw std::bad_alloc();
  const auto check = [&](int result) {
    if (output.error) std::rethrow_exception(output.error);
    if (result < ARCHIVE_OK) {
      throw Error(Code::internal, "compressing by " + std::string(r.name) + ": " + reason(a.get()));
    }
  };
  const std::string options = "compression-level=" + std::to_string(level == 0 ? 1 : level) + r.options;
  archive_entry_set_filetype(entry.get(), AE_IFREG);
  archive_entry_set_pathname(entry.get(), "data");
  check(archive_write_set_format_raw(a.get()));
  check(r.add_writer(a.get()));
  check(archive_write_set_options(a.get(), options.c_str()));
  check(archive_write_set_bytes_per_block(a.get(), 0));
  check(archive_write_open(a.get(), &output, nullptr, Output::write, nullptr));
  check(archive_write_header(a.get(), entry.get()));
  while (!raw.empty()) {
    const Buffer part = raw.pop_front();
    const Bytes chunk = part.chunks().front();
    const la_ssize_t n = archive_write_data(a.get(), chunk.data(), chunk.size());
    check(n == static_cast<la_ssize_t>(chunk.size()) ? ARCHIVE_OK : ARCHIVE_FATAL);
  }
  check(archive_write_close(a.get()));
  return std::move(output.buffer);
}

Buffer decompress(Codec codec, Buffer stored, std::uint64_t raw_size) {
  const std::uint64_t stored_size = stored.size();
  if (codec == Codec::none) {
    if (stored_size == raw_size) return stored;
    throw damaged(codec, std::to_string(stored_size) + " bytes instead of " + std::to_string(raw_size));
  }
  if (codec == Codec::zstd) check_zstd_frame(stored, raw_size);
  const CodecRow& r = row(codec);
  StoredInput input{std::move(stored), {}, {}};
  const std::unique_ptr<archive, int (*)(archive*)> a(archive_read_new(), archive_read_free);
  if (a == nullptr) throw std::bad_alloc();
  const auto check = [&](la_ssize_t result) {
    if (input.error) std::rethrow_exception(input.error);
    if (result < ARCHIVE_OK) throw damaged(codec, reason(a.get()));
    return result;
  };
  check(archive_read_support_format_raw(a.get()));
  check(archive_read_support_format_empty(a.get()));
  // A warning here would mean that libarchive runs the stock tool as a child instead.
  if (r.add_reader(a.get()) != ARCHIVE_OK)
    throw Error(Code::internal, "libarchive was built without " + std::string(r.name));
  check(archive_read_open(a.get(), &input, nullptr, StoredInput::read, nullptr));
  archive_entry* entry = nullptr;
  const bool has_data = check(archive_read_next_header(a.get(), &entry)) == ARCHIVE_OK;
  if (archive_filter_count(a.get()) != 2 || archive_filter_code(a.get(), 0) != r.filter) {
    throw damaged(codec, "it is something else");
  }
  Buffer raw;
  while (has_data) {
    const void* data = nullptr;
    std::size_t size = 0;
    la_int64_t offset = 0;
    if (check(archive_read_data_block(a.get(), &data, &size, &offset)) == ARCHIVE_EOF) break;
    if (size > raw_size - raw.size())
      throw damaged(codec, "more than the " + std::to_string(raw_size) + " bytes that it should be");
    raw.append(Bytes(static_cast<const std::byte*>(data), size));
  }
  if (raw.size() != raw_size) {
    throw damaged(codec, std::to_string(raw.size()) + " bytes instead of " + std::to_string(raw_size));
  }
  if (static_cast<std::uint64_t>(archive_filter_bytes(a.get(), -1)) != stored_size) {
    throw damaged(codec, "something follows its end");
  }
  return raw;
}

}  // namespace guestagent
