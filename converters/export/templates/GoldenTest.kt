// Runs the frames of golden.json through @CLASS@. Written by edgelstm export-app.

package @PACKAGE@

import java.nio.ByteBuffer
import org.json.JSONArray
import org.json.JSONObject

object @CLASS@GoldenTest {
    /**
     * The worst error as a fraction of an output's range.
     *
     * @param golden the text of golden.json.
     * @throws IllegalStateException beyond the tolerance that golden.json tells.
     */
    fun run(model: ByteBuffer, golden: String): Double {
        val told = JSONObject(golden)
        val frames = told.getJSONArray("frames")
        val ranges = told.getJSONObject("ranges")
        var worst = 0.0
        @CLASS@(model).use { stream ->
            for (t in 0 until frames.length()) {
                val inputs = frames.getJSONObject(t).getJSONObject("inputs")
                val outputs = frames.getJSONObject(t).getJSONObject("outputs")
                val found = stream.push(@GOLDEN_CALL@)
@GOLDEN_CHECKS@                check(worst <= told.getDouble("tolerance")) { "frame $t is off by $worst" }
            }
        }
        return worst
    }

    private fun error(found: List<Double>, wanted: JSONArray): Double {
        check(found.size == wanted.length()) { "${found.size} numbers, not ${wanted.length()}" }
        return found.indices.maxOf { Math.abs(found[it] - wanted.getDouble(it)) }
    }

@GOLDEN_HELPERS@}
