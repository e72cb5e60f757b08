// smp.hpp: the C API of smp.h and smp_callbacks.h in C++17, header only.
//
// Objects own what they hold, can be moved and not copied. A failure is an smp::error that knows its status, the stage and a hint; what was not made
// (a probability without a prediction) is an empty std::optional. Texts are copied into std::string. Any object may be used from any thread, as in
// C; moving one while another thread uses it is not allowed. Functions that wait say so.
//
//     smp::config config;
//     config.set("cloud.provider", "s3").set("cloud.bucket", "hospital").set("model_path", "model.onnx");
//     smp::pipeline pipeline(config);
//     smp::result result = pipeline.process_study("breast-mri/patient-001/", "RESEARCH-001");
//     if (const auto probability = result.cancer_probability()) std::cout << *probability << '\n';
#ifndef SMP_HPP
#define SMP_HPP

#if !defined(__cplusplus) || __cplusplus < 201703L
#error "smp.hpp needs C++17"
#endif

#include "smp/callbacks.hpp"
#include "smp/config.hpp"
#include "smp/error.hpp"
#include "smp/library.hpp"
#include "smp/package.hpp"
#include "smp/pipeline.hpp"
#include "smp/result.hpp"

#endif
