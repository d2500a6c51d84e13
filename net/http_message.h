// A request as Beast has parsed it, in the words that handlers read.
#pragma once

#include <boost/beast/http/message.hpp>
#include <boost/beast/http/string_body.hpp>

#include "net/http_server.h"

namespace guestagent {

// Who asks, and by which listener, is the connection's to say.
ReceivedRequest read_message(boost::beast::http::request<boost::beast::http::string_body> message);

}  // namespace guestagent
