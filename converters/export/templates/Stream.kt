// @TITLE@, one frame at a time, in the TensorFlow Lite Interpreter (org.tensorflow:tensorflow-lite
// or com.google.ai.edge.litert). Written by edgelstm export-app.

package @PACKAGE@

import java.io.Closeable
import java.nio.ByteBuffer
import java.nio.ByteOrder
import org.tensorflow.lite.Interpreter

/**
 * A stream of the model; its states go on from frame to frame. For one thread at a time.
 *
 * @param model the content of model.tflite, a direct or mapped buffer; streams share it.
 */
class @CLASS@(
    private val model: ByteBuffer,
    private val options: Interpreter.Options = Interpreter.Options(),
) : Closeable {
    /** What the model says of one frame. */
    class Outputs(@OUTPUT_FIELDS@)

    /** Copies of the states. */
    class States(@STATE_FIELDS@)

    private val interpreter = Interpreter(model, options)
@BUFFERS@

    /** Sets every state to zero. */
    fun reset() {
@RESET@    }

    /** Copies of the states as they are. */
    fun getStates(): States = States(@GET_STATES@)

    /** Goes on from these states. */
    fun setStates(states: States) {
@SET_STATES@    }

    /** A stream of its own that goes on from here. */
    fun fork(): @CLASS@ = @CLASS@(model, options).also { it.setStates(getStates()) }

    /** Runs the next frame; where that fails the states stay as they were. */
    fun push(@ARGUMENTS@): Outputs {
@WRITE_INPUTS@        rewind()
        val given: Map<String, Any> = mapOf(
@GIVEN@        )
        val made: Map<String, Any> = mapOf(
@MADE@        )
        interpreter.runSignature(given, made, "@SIGNATURE@")
        swap()
        return Outputs(@READ_OUTPUTS@)
    }

    override fun close() = interpreter.close()

    private fun rewind() {
@REWIND@    }

    private fun swap() {
@SWAP@    }

    private fun buffer(bytes: Int): ByteBuffer =
        ByteBuffer.allocateDirect(bytes).order(ByteOrder.nativeOrder())

    private fun zero(state: ByteBuffer) {
        for (at in 0 until state.capacity()) state.put(at, 0)
    }

@HELPERS@@SCALING@}
