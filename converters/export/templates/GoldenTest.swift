// Runs the frames of golden.json through @CLASS@. Written by edgelstm export-app.

import Foundation

public enum @CLASS@GoldenTest {
  struct Frame: Decodable {
    let inputs: [String: [Double]]
    let outputs: [String: [Double]]
  }

  struct Golden: Decodable {
    let tolerance: Double
    let ranges: [String: Double]
    let frames: [Frame]
  }

  enum GoldenError: Error {
    case missing(String)
    case differs(frame: Int, error: Double)
  }

  /// The worst error as a fraction of an output's range.
  public static func run(modelPath: String, goldenPath: String) throws -> Double {
    let text = try Data(contentsOf: URL(fileURLWithPath: goldenPath))
    let golden = try JSONDecoder().decode(Golden.self, from: text)
    let stream = try @CLASS@(modelPath: modelPath)
    var worst = 0.0
    for (t, frame) in golden.frames.enumerated() {
      let found = try stream.push(@GOLDEN_CALL@)
@GOLDEN_CHECKS@      guard worst <= golden.tolerance else {
        throw GoldenError.differs(frame: t, error: worst)
      }
    }
    return worst
  }

  private static func numbers(_ from: [String: [Double]], _ name: String) throws -> [Double] {
    guard let found = from[name] else { throw GoldenError.missing(name) }
    return found
  }

  private static func error(
    _ found: [Double], _ from: [String: [Double]], _ name: String, _ ranges: [String: Double]
  ) throws -> Double {
    let wanted = try numbers(from, name)
    guard wanted.count == found.count, let range = ranges[name] else {
      throw GoldenError.missing(name)
    }
    return zip(found, wanted).map { abs($0 - $1) }.max()! / range
  }
}
