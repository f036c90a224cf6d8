import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.File;
import java.io.IOException;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** What is not organic, the same for every org unit. */
record Rules(Map<String, Velocity> velocity, List<Condition> conditions, long latenessMs) {
    record Velocity(int threshold, long windowMs) {}

    record Condition(String key, String operator, String value) {
        boolean matches(JsonNode metadata) {
            JsonNode found = metadata.get(key);
            if (found == null || !found.isTextual()) {
                return false;
            }
            String text = found.textValue();
            return switch (operator) {
                case "contains" -> text.contains(value);
                case "starts_with" -> text.startsWith(value);
                case "equals" -> text.equals(value);
                default -> throw new IllegalArgumentException(operator);
            };
        }
    }

    static Rules read(File file) throws IOException {
        JsonNode told = new ObjectMapper().readTree(file);
        Map<String, Velocity> velocity = new HashMap<>();
        for (JsonNode one : told.get("velocity")) {
            velocity.put(one.get("event_type").asText(),
                new Velocity(one.get("threshold").asInt(), one.get("window_ms").asLong()));
        }
        List<Condition> conditions = new ArrayList<>();
        for (JsonNode one : told.get("conditions")) {
            conditions.add(new Condition(
                one.get("key").asText(), one.get("operator").asText(), one.get("value").asText()));
        }
        return new Rules(velocity, conditions, told.get("lateness_ms").asLong());
    }

    boolean match(JsonNode metadata) {
        for (Condition condition : conditions) {
            if (condition.matches(metadata)) {
                return true;
            }
        }
        return false;
    }
}
