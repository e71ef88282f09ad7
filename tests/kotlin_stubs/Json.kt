package org.json
class JSONArray { fun length(): Int = 0; fun getDouble(i: Int): Double = 0.0; fun getInt(i: Int): Int = 0; fun getLong(i: Int): Long = 0; fun getJSONObject(i: Int): JSONObject = JSONObject("") }
class JSONObject(text: String) { fun getJSONArray(n: String): JSONArray = JSONArray(); fun getJSONObject(n: String): JSONObject = this; fun getDouble(n: String): Double = 0.0 }
