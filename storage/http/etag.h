// Entity tags as servers write them: "…" as RFC 9110 has it, W/"…" behind a proxy, bare as Swift and some S3 servers
// send them.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "net/answer_reader.h"

namespace guestagent {

// The tag alone: without quotes and the mark of a weak one, and in lower case, since it is only ever held against
// hexadecimal digits.
std::string plain_etag(std::string_view header);

// The MD5 that the answer's ETag is; nullopt for one that is none (of a large object, of some encryptions) and where
// there is none.
std::optional<std::string> etag_md5(const HttpResponse& response);

}  // namespace guestagent
