// @TITLE@, one frame at a time, in TensorFlowLiteSwift. Written by edgelstm export-app.

import Foundation
import TensorFlowLite

/// A stream of the model; its states go on from frame to frame. For one thread at a time.
public final class @CLASS@ {
  /// What the model says of one frame.
  public struct Outputs {
@OUTPUT_FIELDS@  }

  /// The states, as a value.
  public struct States {
@STATE_FIELDS@  }

  /// What does not fit the model.
  public enum MisfitError: Error {
    case size(name: String, wanted: Int, found: Int)
    case noTensor(name: String)
  }

  /// The states as they are; setting them goes on from these.
  public var states: States

  private let modelPath: String
  private let threads: Int
  private let interpreter: Interpreter
  private var inputs: [String: Int] = [:]
  private var outputs: [String: Int] = [:]

  /// Opens model.tflite with all states zero.
  public init(modelPath: String, threads: Int = 1) throws {
    self.modelPath = modelPath
    self.threads = threads
    var options = Interpreter.Options()
    options.threadCount = threads
    interpreter = try Interpreter(modelPath: modelPath, options: options)
    states = @CLASS@.zeroStates()
    try interpreter.allocateTensors()
    for index in 0..<interpreter.inputTensorCount {
      inputs[try interpreter.input(at: index).name] = index
    }
    for index in 0..<interpreter.outputTensorCount {
      outputs[try interpreter.output(at: index).name] = index
    }
  }

  /// Sets every state to zero.
  public func reset() {
    states = @CLASS@.zeroStates()
  }

  /// A stream of its own that goes on from here.
  public func fork() throws -> @CLASS@ {
    let other = try @CLASS@(modelPath: modelPath, threads: threads)
    other.states = states
    return other
  }

  /// Runs the next frame; where that fails the states stay as they were.
  public func push(@ARGUMENTS@) throws -> Outputs {
@GIVE@    try interpreter.invoke()
    let next = States(@NEXT@)
    let found = Outputs(@OUTPUTS@)
    states = next
    return found
  }
@SCALING@
  private static func zeroStates() -> States {
    return States(@ZERO_STATES@)
  }

  private func give<T>(_ numbers: [T], count: Int, name: String) throws {
    guard numbers.count == count else {
      throw MisfitError.size(name: name, wanted: count, found: numbers.count)
    }
    guard let index = inputs[name] else { throw MisfitError.noTensor(name: name) }
    let data = numbers.withUnsafeBufferPointer { Data(buffer: $0) }
    try interpreter.copy(data, toInputAt: index)
  }

  private func take<T>(count: Int, name: String) throws -> [T] {
    guard let index = outputs[name] else { throw MisfitError.noTensor(name: name) }
    let data = try interpreter.output(at: index).data
    let found = data.count / MemoryLayout<T>.stride
    guard found == count else {
      throw MisfitError.size(name: name, wanted: count, found: found)
    }
    return data.withUnsafeBytes { Array($0.bindMemory(to: T.self)) }
  }
}
