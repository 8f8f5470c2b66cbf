// SPDX-License-Identifier: Apache-2.0
//
// A TLS server's context with a key and a certificate for localhost, made at the start and signed
// by itself.
#pragma once

#include <memory>
#include <stdexcept>
#include <string>

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

namespace tls {

template <auto F>
struct Free {
    template <class T>
    void operator()(T* p) const {
        F(p);
    }
};
using Context = std::unique_ptr<SSL_CTX, Free<::SSL_CTX_free>>;
using Ssl = std::unique_ptr<SSL, Free<::SSL_free>>;

[[noreturn]] inline void fail(const char* what) {
    char text[256] = "no reason given";
    if (const unsigned long e = ::ERR_get_error()) ::ERR_error_string_n(e, text, sizeof text);
    throw std::runtime_error(std::string(what) + ": " + text);
}

inline Context server_context() {
    Context context(::SSL_CTX_new(::TLS_server_method()));
    const std::unique_ptr<EVP_PKEY, Free<::EVP_PKEY_free>> key(::EVP_EC_gen("P-256"));
    const std::unique_ptr<X509, Free<::X509_free>> cert(::X509_new());
    if (!context || !key || !cert) fail("a key");
    ::X509_set_version(cert.get(), 2);
    ::ASN1_INTEGER_set(::X509_get_serialNumber(cert.get()), 1);
    ::X509_gmtime_adj(::X509_getm_notBefore(cert.get()), 0);
    ::X509_gmtime_adj(::X509_getm_notAfter(cert.get()), 24L * 60 * 60);
    ::X509_set_pubkey(cert.get(), key.get());
    X509_NAME* name = ::X509_get_subject_name(cert.get());
    const auto* host = reinterpret_cast<const unsigned char*>("localhost");
    ::X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, host, -1, -1, 0);
    ::X509_set_issuer_name(cert.get(), name);
    if (::X509_sign(cert.get(), key.get(), ::EVP_sha256()) == 0 ||
        ::SSL_CTX_use_certificate(context.get(), cert.get()) != 1 ||
        ::SSL_CTX_use_PrivateKey(context.get(), key.get()) != 1)
        fail("a certificate");
    return context;
}

} // namespace tls
