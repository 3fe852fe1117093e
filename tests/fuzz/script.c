/*
 * Runs circuit.lua with a stand-in for Redis that has one key.
 */
#include "script.h"

#include <lua5.1/lauxlib.h>
#include <lua5.1/lua.h>
#include <lua5.1/lualib.h>
#include <string.h>

extern const char circuit_lua[];

struct script script;
static lua_State *lua;

static int on_get(lua_State *l)
{
	lua_pushlstring(l, script.value.p, script.value.len);
	return 1;
}

static int on_set(lua_State *l)
{
	const char *value = luaL_checklstring(l, 3, &script.set_len);

	FUZZ_CHECK(strcmp(luaL_checkstring(l, 2), "k") == 0);
	FUZZ_CHECK(strcmp(luaL_checkstring(l, 4), "PX") == 0);
	/* At least the ttl. The member `breakerd` can make it longer, up to the 30 days of an
	 * override. */
	FUZZ_CHECK(luaL_checknumber(l, 5) >= TTL_S * 1000.0 &&
		   luaL_checknumber(l, 5) <= 30 * 86400 * 1000.0);
	FUZZ_CHECK(!script.set && !script.deleted);
	/* The memory ends with the value, so that a sanitizer sees reads beyond. */
	script.set = malloc(script.set_len);
	FUZZ_CHECK(script.set);
	memcpy(script.set, value, script.set_len);
	lua_createtable(l, 0, 1);
	lua_pushliteral(l, "OK");
	lua_setfield(l, -2, "ok");
	return 1;
}

static int on_time(lua_State *l)
{
	lua_createtable(l, 2, 0);
	lua_pushliteral(l, "1700000000");
	lua_rawseti(l, -2, 1);
	lua_pushliteral(l, "123456");
	lua_rawseti(l, -2, 2);
	return 1;
}

static int on_pcall(lua_State *l)
{
	const char *command = luaL_checkstring(l, 1);

	if (strcmp(command, "GET") == 0 || strcmp(command, "GETRANGE") == 0)
		return on_get(l);
	if (strcmp(command, "SET") == 0)
		return on_set(l);
	if (strcmp(command, "TIME") == 0)
		return on_time(l);
	if (strcmp(command, "PTTL") == 0) {
		lua_pushnumber(l, (lua_Number)LEFT_MS);
		return 1;
	}
	FUZZ_CHECK(strcmp(command, "DEL") == 0 && !script.set && !script.deleted);
	script.deleted = true;
	lua_pushnumber(l, 1);
	return 1;
}

static void start(void)
{
	lua_State *l = luaL_newstate();

	FUZZ_CHECK(l);
	luaL_openlibs(l);
	lua_createtable(l, 0, 1);
	lua_pushcfunction(l, on_pcall);
	lua_setfield(l, -2, "pcall");
	lua_setglobal(l, "redis");
	lua_createtable(l, 1, 0);
	lua_pushliteral(l, "k");
	lua_rawseti(l, -2, 1);
	lua_setglobal(l, "KEYS");
	FUZZ_CHECK(luaL_loadbuffer(l, circuit_lua, strlen(circuit_lua), "circuit.lua") == 0);
	lua = l;
}

void script_forget(void)
{
	free(script.set);
	free(script.reply);
	script.set = script.reply = NULL;
	script.deleted = false;
	/* libFuzzer would take garbage of one run for a leak, and start a leak check. */
	if (lua)
		lua_gc(lua, LUA_GCCOLLECT, 0);
}

void script_eval(struct fuzz_text value, const char *ops, struct circuit_script_answer *answer)
{
	size_t len;
	const char *text;

	if (!lua)
		start();
	free(script.set);
	free(script.reply);
	script.set = script.reply = NULL;
	script.deleted = false;
	script.value = value;
	lua_createtable(lua, 2, 0);
	lua_pushliteral(lua, "86400000");
	lua_rawseti(lua, -2, 1);
	lua_pushstring(lua, ops);
	lua_rawseti(lua, -2, 2);
	lua_setglobal(lua, "ARGV");
	lua_pushvalue(lua, 1);
	if (lua_pcall(lua, 0, 1, 0) != 0) {
		fprintf(stderr, "circuit.lua: %s\n", lua_tostring(lua, -1));
		abort();
	}
	FUZZ_CHECK(lua_istable(lua, -1) && lua_objlen(lua, -1) == 1);
	lua_rawgeti(lua, -1, 1);
	text = lua_tolstring(lua, -1, &len);
	FUZZ_CHECK(text);
	script.reply = fuzz_string((struct fuzz_text){text, len});
	FUZZ_CHECK(circuit_script_read(script.reply, len, answer));
	lua_settop(lua, 1);
}
