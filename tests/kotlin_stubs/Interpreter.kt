package org.tensorflow.lite
import java.nio.ByteBuffer
class Interpreter(model: ByteBuffer, options: Options) : AutoCloseable {
    class Options
    fun runSignature(inputs: Map<String, Any>, outputs: Map<String, Any>, signatureKey: String) {}
    override fun close() {}
}
